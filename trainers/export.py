"""Export one agent of a run to a format that other programs open.

    python -m trainers.export RUN_DIR --agent ID --format peft|gguf|merged-gguf|onnx [--generation G] [--out PATH]

peft: the adapter as a folder for PEFT and vLLM. gguf: the adapter for llama.cpp, beside the base's GGUF file.
merged-gguf: a whole model for programs that know no adapters, which answers differently from the agent (see
`agents.formats.gguf`). onnx: a folder with a graph for ONNX Runtime and a script that asks it (`agents.formats.onnx`).
A model card (.md) and the words of its world (.json) are written beside a single file.
"""

import argparse
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agents.codecs.codec import TextCodec, named_class
from agents.codecs.forage import ForageCodec
from agents.codecs.others import CODECS
from agents.types import UserError, require
from evolution.commands import a_path, command
from trainers.cli.command_line import run_command
from trainers.cli.parser import read_config
from trainers.records.manifest import by_generation, checkpoints
from trainers.records.reading import read_log
from trainers.records.sealed import check_folder
from trainers.variants import acting_config

if TYPE_CHECKING:
    from agents.policy_network import PolicyNetwork


class Agent(NamedTuple):
    """One agent of a run, alone on its base."""

    folder: Path  # its adapter in PEFT's format
    network: "PolicyNetwork"  # with this one adapter
    codec: TextCodec
    name: str


def main(argv: list[str] | None = None) -> None:
    """Export from the command line; a mistake is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog=command("trainers.export"), allow_abbrev=False)
    parser.add_argument("run_dir", type=a_path, metavar="RUN_DIR", help="folder of the run")
    parser.add_argument("--agent", required=True, metavar="ID", help="its slot, as 7; or its genome's id, as id:123")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--generation", type=int, metavar="G", help="one that was exported; the newest if not given")
    parser.add_argument("--out", type=a_path, metavar="PATH", help="where to; in RUN_DIR/exports if not given")
    options = parser.parse_args(argv)
    run_command(lambda: print(export(options.run_dir, options.agent, options.format, options.generation, options.out)))


def export(run_dir: Path, agent: str, form: str, generation: int | None = None, out: Path | None = None) -> Path:
    """Write an agent of a run in one of `FORMATS` to `out`, which must not exist yet, and return it.

    agent: its slot, or `id:` and the id of its genome. UserError if there is no such run or agent, or if that format
    does not take its base.
    """
    require(form in FORMATS, "format", form, f"one of {', '.join(FORMATS)}")
    write, ending = FORMATS[form]
    folder = adapter_folder(run_dir, agent, generation)
    name = f"{folder.parent.name}-{folder.name}"
    out = out or run_dir / "exports" / f"{name}{ending}"
    require(not out.exists(), "out", str(out), "a path where nothing is yet")
    opened = open_agent(run_dir, folder, name)
    out.parent.mkdir(parents=True, exist_ok=True)
    write(opened, out)
    return out


def adapter_folder(run_dir: Path, agent: str, generation: int | None) -> Path:
    """The folder of an agent's adapter in a run; UserError, saying which there are, if there is none."""
    found = by_generation(run_dir / "adapters")
    if not found:
        raise UserError(f"{run_dir / 'adapters'}: holds no exported adapters; must be in the folder of a run")
    chosen = max(found) if generation is None else generation
    require(chosen in found, "generation", chosen, f"one that was exported: {', '.join(map(str, sorted(found)))}")
    check_folder(found[chosen])
    slots = {int(f.name.removeprefix("agent_")): f for f in found[chosen].glob("agent_*")}
    match = re.fullmatch(r"(id:)?(\d+)", agent)
    allowed = f"a slot between 0 and {max(slots, default=-1)}, or id: and the id of one that lived in gen. {chosen}"
    require(match is not None, "agent", agent, allowed)
    assert match
    slot = int(match[2]) if not match[1] else _slots(run_dir, chosen).get(int(match[2]), -1)
    require(slot in slots, "agent", agent, allowed)
    return slots[slot]


def _slots(run_dir: Path, generation: int) -> dict[int, int]:
    """Genome's id -> slot, of those who lived in a generation: the latest born into each slot until then."""
    events = read_log(run_dir, "lineage.jsonl")
    births = [e for e in events if e["event"] == "birth" and e["generation"] <= generation]
    latest = {event["slot"]: event["id"] for event in births}
    return {id: slot for slot, id in latest.items()}


def open_agent(run_dir: Path, folder: Path, name: str) -> Agent:
    """An agent on the base that its run's config.yaml names; UserError if anything does not fit."""
    from agents.policy import make_policy  # torch, late

    newest = max(checkpoints(run_dir), default=0)
    config = acting_config(read_config(run_dir), run_dir, newest)
    codec = codec_of(config.env.id, config.env.codec)
    model = replace(config.model, device="cpu")  # on which alone other formats are written
    network = make_policy(model, config.adapter, codec, agents=1, seed=0).network
    try:
        network.load_adapter(0, folder)
    except ValueError as error:
        raise UserError(str(error)) from error
    return Agent(folder, network, codec, name)


def codec_of(env_id: str, own: str) -> Any:
    """The class of a world's codec, of which only the words are needed here; UserError if there is none.

    own: `package.module:Class` of a user's codec, empty for the one that comes with the world.
    """
    if own:
        return named_class(own)
    if env_id == "forage":
        return ForageCodec
    kinds = [kind for begins, kind in CODECS.items() if env_id.rpartition(":")[2].startswith(begins)]
    require(bool(kinds), "env.id", env_id, "a world that has a codec")
    return kinds[0]


def _peft(agent: Agent, out: Path) -> None:
    shutil.copytree(agent.folder, out)


def _gguf(agent: Agent, out: Path) -> None:
    from agents.backends import require_answer_token
    from agents.formats.gguf import Shape, save_gguf_adapter

    network = agent.network
    require_answer_token(network, "an agent in GGUF")
    shape, alpha = Shape.of(network.base.causal_lm.config), network.bank.config.alpha
    save_gguf_adapter(out, network.bank.read(0), shape, alpha=alpha, answer_id=network.answer_id, name=agent.name)
    _write_words(agent, out)
    _write_card(agent, out, LORA_CARD)


def _merged(agent: Agent, out: Path) -> None:
    from agents.backends import require_answer_token
    from agents.formats.gguf import Shape, merge_gguf

    require_answer_token(agent.network, "an agent in GGUF")
    base, bank = agent.network.base, agent.network.bank
    shape = Shape.of(base.causal_lm.config)
    merge_gguf(base.gguf, out, bank.read(0), shape, scaling=bank.scaling, name=agent.name)
    _write_words(agent, out)
    _write_card(agent, out, MERGED_CARD)


def _onnx(agent: Agent, out: Path) -> None:
    from agents.backends import require_installed

    require_installed("format = 'onnx'", "onnx", "onnx", "onnxscript")
    from agents.formats.onnx import export as write_onnx

    write_onnx(agent.network, 0, out, card=f"Agent: {agent.name}.")


FORMATS: dict[str, tuple[Callable[[Agent, Path], None], str]] = {
    "peft": (_peft, ""),
    "gguf": (_gguf, ".lora.gguf"),
    "merged-gguf": (_merged, ".merged.gguf"),
    "onnx": (_onnx, "-onnx"),
}
"""How each format is written, and how its files end."""


def _write_words(agent: Agent, out: Path) -> None:
    """Write beside `out`, as JSON, the parts of the prompt and the tokens that answer."""
    network, codec = agent.network, agent.codec
    words = {
        "base_model": network.base.public_name,
        "prompt": "{instructions}{text} {answer}",
        "instructions": codec.instructions,
        "answer": codec.answer,
        "action_words": list(codec.action_words),
        "beginning_ids": network.base.beginning,
        "answer_id": network.answer_id,
        "action_ids": network.action_ids,
        "alora_invocation_tokens": [network.answer_id],
    }
    out.with_name(out.name + ".json").write_text(json.dumps(words, indent=2) + "\n")


def _write_card(agent: Agent, out: Path, how: str) -> None:
    codec, base = agent.codec, agent.network.base.public_name
    prompt = f"{codec.instructions}{{text}} {codec.answer}"
    request = {
        "prompt": prompt.replace("{text}", " ..."),
        "n_predict": 1,
        "logit_bias": [
            [token, 100] for token in agent.network.action_ids
        ],  # a grammar would let " st" pass for " stay"
        "temperature": 1,  # this and the rest: drawn as the policy draws
        "top_k": 0,
        "top_p": 1,
        "min_p": 0,
    }
    out.with_name(out.name + ".md").write_text(
        f"---\nbase_model: {base}\ntags: [lora, terrarium]\n---\n\n# A Terrarium agent: {agent.name}\n\n"
        f"It is asked with the prompt {json.dumps(prompt)}, where the text begins with a space, and answers with one "
        f"token: {', '.join(codec.action_words)}. Only these count: take the likeliest, or draw among them.\n\n"
        + how.format(file=out.name, request=json.dumps(request)),
        encoding="utf-8",
    )


LORA_CARD = """This is an activated LoRA adapter: it is meant to act from the answer word on, and not before.
(llama-server begins one token earlier, which changed little where it was measured: a mean KL of 0.0016 nats over the
words, and no other choice in 20 texts. Terrarium's own llama.cpp backend does not.)

    llama-server -m BASE.gguf --lora {file}
    curl localhost:8080/completion -d '{request}'
"""
MERGED_CARD = """The adapter is merged into the weights, so it acts on the instructions and the text too. It never did
while it learned, so this model answers otherwise than the agent. Five agents of SmolLM2, after eight generations in the
forage world, chose another word in 3 to 6 % of cases (mean KL over the words 0.003 to 0.010 nats). Use the adapter
itself where you can: there it was 1 to 4 %, all of it from the 4-bit base (0.001 nats).

    llama-server -m {file}
    curl localhost:8080/completion -d '{request}'
"""


if __name__ == "__main__":
    main()
