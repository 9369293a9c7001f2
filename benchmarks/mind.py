"""What the mind of a population costs: decisions and updates of twenty agents beside PEFT, on the real model.

    python -m benchmarks.mind [--agents N] [--repeats R] [--json FILE]

Decisions, each of all agents once: in a running world (texts are read as they come, answers remembered), with texts
known but no answers (as after each update), and with nothing known. PEFT answers the same texts with the same adapters
as a loop of `set_adapter` and one forward for each agent, and as one mixed batch (`adapter_names`); its output head
looks at the last token only. All in float32; the logits of all are compared.
Updates: of one action of each agent, and of a whole life (PPO with its epochs). Medians; needs the `dev` extra.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from agents.forage_codec import ForageCodec
from agents.policy import Policy, make_policy
from agents.types import AdapterConfig, ModelConfig
from envs import WorldConfig
from envs.worlds.world import ForageWorld
from trainers.config import LearnConfig
from trainers.learner import Learner
from trainers.rollout import Life, Trajectory, rollout
from trainers.run_folder import machine


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of `work`, after one run that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return 1000 * float(np.median(times[1:]))


def mature_policy(agents: int) -> Policy:
    """A policy whose adapters do something: as large as after some generations, and all different."""
    policy = make_policy(ModelConfig(), AdapterConfig(), ForageCodec(WorldConfig().view_radius), agents, seed=0)
    bank = policy.mind.bank
    bank.values += 0.06 * torch.randn(bank.values.shape, generator=torch.Generator().manual_seed(0))
    bank.version += 1
    return policy


def peft_model(policy: Policy, folder: Path) -> PeftModel:
    """The same adapters, opened by PEFT on the base as plain transformers loads it."""
    mind = policy.mind
    base = AutoModelForCausalLM.from_pretrained(mind.base.folder, dtype=torch.float32)
    for i in range(len(mind.bank)):
        mind.save_adapter(i, folder / f"agent_{i}")
    model = PeftModel.from_pretrained(base, folder / "agent_0", adapter_name="agent_0")
    for i in range(1, len(mind.bank)):
        model.load_adapter(folder / f"agent_{i}", adapter_name=f"agent_{i}")
    return model.eval()


@torch.no_grad()
def peft_loop(model: PeftModel, policy: Policy, texts: list[str]) -> torch.Tensor:
    """Action logits (N, A) of N agents, one after the other, as PEFT's documentation has it."""
    mind, rows = policy.mind, []
    for i, text in enumerate(texts):
        model.set_adapter(f"agent_{i}")
        ids = torch.tensor([[*mind.instruction_ids, *mind.base.tokens(text), mind.answer_id]])
        rows.append(
            model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=1).logits[0, -1, mind.action_ids]
        )
    return torch.stack(rows)


@torch.no_grad()
def peft_mixed(model: PeftModel, policy: Policy, texts: list[str]) -> torch.Tensor:
    """Action logits (N, A) of N agents in one batch, each row with its own adapter; filled up in front."""
    mind = policy.mind
    prompts = [[*mind.instruction_ids, *mind.base.tokens(text), mind.answer_id] for text in texts]
    longest = max(map(len, prompts))
    ids = torch.tensor([[mind.answer_id] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        adapter_names=[f"agent_{i}" for i in range(len(texts))],
        logits_to_keep=1,
    )
    return out.logits[:, -1, mind.action_ids]


def forget_answers(policy: Policy) -> None:
    """As an update of the adapters does."""
    policy.mind.bank.version += 1


def decisions(policy: Policy, repeats: int) -> tuple[dict[str, float], Life, list[str]]:
    """Milliseconds of a step of all agents by what is known before it; also a life, and the texts of a moment in it."""
    agents, mind = len(policy.mind.bank), policy.mind
    codec, rng = ForageCodec(WorldConfig().view_radius), np.random.default_rng(0)
    world = ForageWorld(WorldConfig(agents=agents, energy_start=100.0, cost_step=0.0))
    life = rollout(policy, codec, world, np.array([0]), rng)
    texts = [life.trajectory.texts[i] for i in life.trajectory.text[64]]

    def act(number: int, *, knows_texts: bool) -> None:
        forget_answers(policy)
        if not knows_texts:
            mind.memory.read_again({"batches": [], "texts": []})
        policy.act(texts[:number], np.arange(number), np.ones((number, 5), bool), rng)

    forget_answers(policy)
    running = rollout(policy, codec, world, np.array([1]), rng).decide_s
    rows = {
        "step in a running world, median": 1000 * float(np.median(running)),
        "step in a running world, mean": 1000 * float(np.mean(running)),
        "step, texts known, answers not": milliseconds(lambda: act(agents, knows_texts=True), repeats),
        "step, nothing known": milliseconds(lambda: act(agents, knows_texts=False), repeats),
        "one agent, text known": milliseconds(lambda: act(1, knows_texts=True), repeats),
        "one agent, nothing known": milliseconds(lambda: act(1, knows_texts=False), repeats),
    }
    return rows, life, texts


def updates(policy: Policy, life: Life, repeats: int) -> dict[str, float]:
    """Milliseconds of an update of all adapters from one action of each agent, and from a whole life."""
    learner, agents = Learner(policy, LearnConfig()), len(policy.mind.bank)
    rate, entropy = torch.full((agents,), 1e-4), torch.zeros(agents)
    columns = life.trajectory._asdict()
    moment = Trajectory(**{name: x if name == "texts" else x[64:65] for name, x in columns.items()})

    def learn(trajectory: Trajectory) -> None:
        learner.learn(trajectory, rate, entropy, np.random.default_rng(0))

    return {
        "update from one action each": milliseconds(lambda: learn(moment), repeats),
        "update from a life (PPO)": milliseconds(lambda: learn(life.trajectory), max(1, repeats // 4)),
    }


def main() -> None:
    """Measure, print a table, and write the rows to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    policy = mature_policy(options.agents)
    rows, life, texts = decisions(policy, options.repeats)
    few = max(2, options.repeats // 3)
    with tempfile.TemporaryDirectory() as folder:
        model = peft_model(policy, Path(folder))
        with torch.no_grad():
            ours = policy.mind.action_logits(texts, torch.arange(options.agents))
        differences = {}
        for name, answer in {"PEFT loop": peft_loop, "PEFT mixed batch": peft_mixed}.items():
            differences[name] = float((answer(model, policy, texts) - ours).abs().max())
            rows[name] = milliseconds(partial(answer, model, policy, texts), few)
        del model
    rows |= updates(policy, life, options.repeats)

    here = machine()
    print(f"{options.agents} agents, {here['cpu']} ({here['capability']}), {here['threads']} threads")
    for name, ms in rows.items():
        ratio = f"   PEFT loop / this = {rows['PEFT loop'] / ms:6.1f}" if name.startswith(("step", "PEFT")) else ""
        print(f"{name:32s} {ms:9.1f} ms{ratio}")
    for name, difference in differences.items():
        print(f"largest difference of the action logits, ours against {name}: {difference:.1e}")
    if options.json:
        result = {"machine": here, "agents": options.agents, "milliseconds": rows, "largest_differences": differences}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
