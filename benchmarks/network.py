"""What decisions and updates of a population cost, beside PEFT, llama.cpp and ONNX Runtime, on real weights.

    python -m benchmarks.network [--agents N] [--repeats R] [--dtype auto|float32|bfloat16]
                                [--device cpu|cuda|mps] [--no-peers] [--json FILE]

A step is one decision of every agent. In a running world texts and answers are cached as they come. After an update the
texts are cached, the answers are not. In a cold step nothing is cached. The other runtimes answer the same texts with
the same adapters; the largest difference of their action logits is shown. An online update learns from one action of
each agent, PPO from a whole rollout with its epochs. All figures are medians from one run. PEFT is on the same device;
the other runtimes are on the CPU alone, and left out elsewhere. Needs the `dev` extra, and the extras `onnx` and
`llama-cpp` for their rows.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from agents.backends import Backend
from agents.codecs.forage import ForageCodec
from agents.device import device_name
from agents.optimiser import StackedAdam
from agents.policy import Policy
from agents.weights.frozen import product_dtype
from benchmarks.generation import peak_gflops
from benchmarks.peers import Peft
from benchmarks.subject import forget_texts, mature_policy, milliseconds, runtimes
from envs import WorldConfig
from envs.worlds.world import ForageWorld
from trainers.cli.command_line import run_command
from trainers.learning.config import LearnConfig
from trainers.learning.learner import make_learner
from trainers.records.run_folder import machine
from trainers.rollout import Rollout, collect_rollout

Rows = dict[str, float]


def collect(policy: Policy, seed: int) -> Rollout:
    """A rollout of a policy's agents, in a world where nobody starves, with no answers cached before."""
    codec, agents = ForageCodec(WorldConfig().view_radius), len(policy.network.bank)
    world = ForageWorld(WorldConfig(agents=agents, energy_start=100.0, cost_step=0.0))
    policy.answers.forget()
    return collect_rollout(policy, codec, world, np.array([seed]), np.random.default_rng(seed))


def decisions(policy: Policy, texts: list[str], repeats: int) -> Rows:
    """Milliseconds of a step of all agents, one text each, by what is cached before it."""
    agents, device = len(policy.network.bank), policy.network.device
    collect(policy, seed=1)  # most texts of a later rollout are cached from earlier ones
    running = 1000 * collect(policy, seed=2).decide_s

    def cold() -> None:
        forget_texts(policy.network)
        policy.network.answer(texts, np.arange(agents))

    return {
        "running world, median": float(np.median(running)),
        "running world, mean": float(np.mean(running)),
        "texts known, answers not": milliseconds(
            lambda: policy.network.answer(texts, np.arange(agents)), repeats, device
        ),
        "cold, nothing known": milliseconds(cold, repeats, device),
    }


def updates(policy: Policy, collected: Rollout, texts: list[str], repeats: int) -> Rows:
    """Milliseconds of an online update (one action of each agent) and of PPO on a whole rollout."""
    agents, bank = len(policy.network.bank), policy.network.bank
    optimiser, rate = StackedAdam(bank), torch.full((agents,), 1e-4)
    everyone, action = torch.arange(agents), torch.zeros(agents, dtype=torch.long)
    legal, is_learning = torch.ones(agents, 5, dtype=torch.bool), torch.ones(agents, dtype=torch.bool)

    def online() -> None:
        log_prob, _ = policy.evaluate(texts, everyone, action, legal)
        with bank.gathering(slice(0, agents)) as gradients:
            (-0.1 * log_prob).sum().backward()
        optimiser.step(slice(0, agents), gradients, rate, 0.5, is_learning)

    learner = make_learner(policy, LearnConfig())

    def ppo() -> None:
        rng, experience = np.random.default_rng(0), learner.experience(collected.trajectory, rate, torch.zeros(agents))
        learner.learn(experience, rng)
        learner.critic.learn(collected.trajectory, experience.returns, rng)

    device = policy.network.device
    return {
        "online update": milliseconds(online, repeats, device),
        "PPO on a rollout": milliseconds(ppo, max(1, repeats // 3), device),
    }


def trunk(policy: Policy, peak_gflops: float, repeats: int) -> Rows:
    """Floating-point operations per second of reading 20 new texts of 40 to 59 tokens, and their share of the peak."""
    network = policy.network
    word, texts = network.base.one_token("north"), [[network.base.one_token("food")] * n for n in range(40, 60)]
    tokens = [[word, *text[2:], network.answer_id] for text in texts]
    ms = milliseconds(lambda: network.reader.read(tokens), repeats, network.device)
    config = network.base.causal_lm.config
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    width = config.hidden_size // config.num_attention_heads
    weights = config.hidden_size * (heads * width + config.hidden_size + 3 * config.intermediate_size)
    count = sum(map(len, tokens))
    reached = 2 * weights * config.num_hidden_layers * count / ms / 1e6
    return {"tokens": count, "ms": ms, "reached_gflops": reached, "share": reached / peak_gflops}


def peers(policy: Policy, texts: list[str], repeats: int) -> tuple[Rows, Rows, Rows]:
    """Milliseconds of a step of each other runtime, how much its logits differ from ours, and PEFT's training step."""
    rows, differences, training = {}, {}, {}
    ours = policy.network.answer(texts, np.arange(len(texts)))
    with tempfile.TemporaryDirectory() as box:
        for dtype in ("float32", "bfloat16"):
            peft = Peft(policy, Path(box) / dtype, getattr(torch, dtype))
            ways = {"PEFT loop": peft.loop, "PEFT mixed batch": peft.mixed, "PEFT tuned by hand": peft.tuned}
            for name, answer in ways.items():
                differences[f"{name}, {dtype}"] = float(np.abs(answer(texts) - ours).max())
                rows[f"{name}, {dtype}"] = milliseconds(partial(answer, texts), repeats, peft.device)
            minibatch = [texts[i % len(texts)] for i in range(LearnConfig().minibatch)]
            training[f"PEFT, one step of one agent on {len(minibatch)} rows, {dtype}"] = milliseconds(
                partial(peft.learn, minibatch), 2, peft.device
            )
        everyone = np.arange(len(texts))
        for name, backend in runtimes(policy.network, ("Q8_0", "BF16"), Path(box), without=("mlx",)):

            def step(backend: Backend = backend) -> np.ndarray:
                forget_texts(backend)
                return backend.answer(texts, everyone)

            differences[name] = float(np.abs(step() - ours).max())
            rows[name] = milliseconds(step, repeats)
    return rows, differences, training


def main() -> None:
    """Measure, print a table, and write the rows to a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "mps"))
    parser.add_argument("--no-peers", action="store_true", help="our own rows alone")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    policy, alone = (mature_policy(agents, options.dtype, options.device) for agents in (options.agents, 1))
    where = device_name(policy.network.device)
    here = machine() | {"dtype": product_dtype(policy.network.base.decoder), "device": where}
    print(f"{options.agents} agents, {here['cpu']} ({here['capability']}), {here['threads']} threads, {here['dtype']}")
    print(f"model.device: {where}")
    collected = collect(policy, seed=0)
    texts = [collected.trajectory.texts[i] for i in collected.trajectory.text[64]]
    ours = decisions(policy, texts, options.repeats)
    one = {f"one agent: {name}": ms for name, ms in decisions(alone, texts[:1], options.repeats).items()}
    peak = peak_gflops(policy.network)
    read = trunk(policy, peak, options.repeats)
    compared: tuple[Rows, Rows, Rows] = ({}, {}, {})
    if not options.no_peers:
        compared = peers(policy, texts, max(2, options.repeats // 3))
    theirs, differences, training = compared
    ours |= one | updates(policy, collected, texts, options.repeats)
    for name, ms in ours.items():
        print(f"{name:50s} {ms:9.1f} ms")
    reached = f"{read['reached_gflops']:.0f} of {peak:.0f} GFLOP/s, {read['share']:.0%}"
    print(f"20 new texts of {read['tokens']:.0f} tokens in all: {read['ms']:.0f} ms, {reached} of the peak")
    for name, ms in theirs.items():
        ratios = (ms / ours[key] for key in ("running world, median", "running world, mean", "cold, nothing known"))
        times = "running {:.0f} x, its mean {:.0f} x, cold {:.1f} x".format(*ratios)
        print(f"{name:50s} {ms:9.1f} ms   {times}; logits differ by {differences[name]:.1e}")
    minibatches = LearnConfig().epochs * -(-len(collected.decide_s) // LearnConfig().minibatch)  # of each agent
    for name, ms in training.items():
        whole = ms * options.agents * minibatches
        print(f"{name:50s} {ms:9.1f} ms   PPO: {whole / 1000:.0f} s, {whole / ours['PPO on a rollout']:.0f} x ours")
    if options.json:
        result = {"machine": here, "agents": options.agents, "milliseconds": ours | theirs | training}
        result |= {"largest_differences": differences, "trunk": read, "peak_gflops": peak, "minibatches": minibatches}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
