"""The loop of the original idea: one language model agent lives in a forage world until its energy is gone.

python -m examples.one_agent [--steps N] [--model NAME]
"""

import argparse

from agents import TinyLLMAgent
from envs import Habitat
from trainers.cli.command_line import run_command


def main() -> None:
    """Live, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="end after so many steps (default: 300)")
    parser.add_argument("--model", default="smollm2-135m", help="a known name, a model folder or a GGUF file")
    options = parser.parse_args()
    steps_left = options.steps

    world = Habitat(seed=1)
    agent = TinyLLMAgent(base_model=options.model, lora_adapter=None, energy=60.0)
    agent.enter(world)
    eaten = 0
    while agent.alive and steps_left:
        obs = world.observe(agent.position)
        action = agent.decide(obs)
        reward = agent.act(action)
        agent.learn(obs, action, reward)
        agent.energy -= world.cost(agent.position)
        steps_left -= 1
        if reward > 0:
            eaten += 1
            print(f"ate at {agent.position}, energy {agent.energy:.0f}")
    print(
        f"{'alive' if agent.alive else 'dead'} after eating {eaten}; the adapter is in",
        agent.save_lora("runs/agent_{id}_gen_{gen}"),
    )


if __name__ == "__main__":
    run_command(main)
