"""One step of decisions of twenty agents: Terrarium beside a loop over PEFT adapters, in one run on the real model.

    python -m benchmarks.decide [--agents N] [--json FILE]

Rows: the median step in a running world (texts are read as they come, answers remembered), a step whose texts are known
but not the answers (as after each update), a step in which nothing is known, and the PEFT loop: for each agent
`set_adapter` and one forward of its whole prompt, with the output head at the last token only. All in float32, with the
same adapters; the logits of both are compared. Needs the `dev` extra for PEFT.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
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
from trainers.rollout import rollout
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


def forget_answers(policy: Policy) -> None:
    """As an update of the adapters does."""
    policy.mind.bank.version += 1


def main() -> None:
    """Measure, print a table, and write the rows to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    policy = mature_policy(options.agents)
    mind, codec = policy.mind, ForageCodec(WorldConfig().view_radius)
    world = ForageWorld(WorldConfig(agents=options.agents, energy_start=100.0, cost_step=0.0))
    rng = np.random.default_rng(0)
    life = rollout(policy, codec, world, np.array([0]), rng)
    texts = [life.trajectory.texts[i] for i in life.trajectory.text[64]]
    everyone, legal = np.arange(options.agents), np.ones((options.agents, 5), bool)

    def known() -> None:
        forget_answers(policy)
        policy.act(texts, everyone, legal, rng)

    def cold() -> None:
        forget_answers(policy)
        mind.memory.read_again({"batches": [], "texts": []})
        policy.act(texts, everyone, legal, rng)

    forget_answers(policy)
    running = 1000 * float(np.median(rollout(policy, codec, world, np.array([1]), rng).decide_s))
    rows = {
        "running world": running,
        "texts known, answers not": milliseconds(known, options.repeats),
        "nothing known": milliseconds(cold, options.repeats),
    }
    with tempfile.TemporaryDirectory() as folder:
        model = peft_model(policy, Path(folder))
        with torch.no_grad():
            ours = mind.action_logits(texts, torch.arange(options.agents))
        difference = float((peft_loop(model, policy, texts) - ours).abs().max())
        rows["PEFT loop, float32"] = milliseconds(lambda: peft_loop(model, policy, texts), max(2, options.repeats // 3))

    here = machine()
    print(f"{options.agents} agents, one step, {here['cpu']} ({here['capability']}), {here['threads']} threads")
    for name, ms in rows.items():
        print(f"{name:26s} {ms:9.1f} ms   PEFT loop / this = {rows['PEFT loop, float32'] / ms:6.1f}")
    print(f"largest difference of the action logits, ours against PEFT: {difference:.1e}")
    if options.json:
        result = {
            "machine": here,
            "agents": options.agents,
            "milliseconds": rows,
            "largest_logit_difference": difference,
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
