"""One agent as an object, for the loop of the original idea:

    agent = TinyLLMAgent(base_model="smollm2-135m", lora_adapter=None, energy=100.0)
    agent.enter(world)
    while agent.alive:
        obs = world.observe(agent.position)
        action = agent.decide(obs)
        reward = agent.act(action)
        agent.learn(obs, action, reward)
        agent.energy -= world.cost(agent.position)
    agent.save_lora("agent_{id}_gen_{gen}")

It is a view on one row of a bank, not a second implementation: alone it has a bank of one; `population` makes many
that share one base and one bank.
"""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from agents.codecs.codec import TextCodec
from agents.codecs.forage import ForageCodec
from agents.lora import AdapterBank
from agents.optimiser import StackedAdam
from agents.policy import Policy, make_policy
from agents.types import AdapterConfig, Device, Dtype, ModelConfig, require
from envs.types import WorldConfig
from evolution.genome import Adapter

Position = tuple[int, int]


class SoloWorld(Protocol):
    """What an agent needs of a world to live in it alone, see `envs.solo.Habitat`."""

    def start(self) -> Position:
        """Where a new agent stands: (row, column)."""

    def observe(self, position: Position) -> np.ndarray:
        """What is seen from there: (O,) float32."""

    def act(self, position: Position, action: int) -> tuple[Position, float, float]:
        """New position, reward and energy eaten."""


class _Shared(NamedTuple):
    """What the agents of a population have in common."""

    policy: Policy
    codec: TextCodec
    optimiser: StackedAdam


class _Deed(NamedTuple):
    """One remembered decision."""

    text: str
    action: int
    legal: Tensor  # (A,) bool


class TinyLLMAgent:
    """A language model agent with an adapter, a memory and a store of energy.

    Learns online by OLPOMDP (Baxter, Weaver & Bartlett 2001, "Experiments with infinite-horizon policy-gradient
    estimation", algorithm 2): each reward moves the policy along an eligibility trace of the decisions before it.
    Departures: 1. the trace is cut after `window` decisions, recomputed with the adapter as it is now; 2. a running
    mean of the reward is subtracted; 3. Adam takes the step.
    """

    def __init__(
        self,
        base_model: str = "smollm2-135m",
        lora_adapter: str | Path | Mapping[str, Tensor] | None = None,
        energy: float = 100.0,
        *,
        id: int = 0,
        generation: int = 0,
        learning_rate: float = 1e-3,
        discount: float = 0.9,
        window: int = 8,
        codec: TextCodec | None = None,
        adapter_config: AdapterConfig | None = None,
        dtype: Dtype = "auto",
        device: Device = "auto",
        seed: int = 0,
        _shared: tuple[_Shared, int] | None = None,
    ):
        """lora_adapter: a PEFT folder, tensors by name, or None for a newborn. energy: in the world's units.

        dtype: float32 or bfloat16, in which the frozen weights are multiplied, or auto, the faster one here. device:
        cpu, cuda, mps, or auto, which is cuda if there is one.
        """
        require(np.isfinite(energy) and energy > 0, "energy", energy, "finite and above 0")
        allowed = "finite and above 0, at most 1"
        require(np.isfinite(learning_rate) and 0 < learning_rate <= 1, "learning_rate", learning_rate, allowed)
        require(0 <= discount <= 1, "discount", discount, "between 0 and 1")
        require(window >= 1, "window", window, "1 or more")
        shared, row = _shared or (_share(base_model, 1, codec, adapter_config, dtype, device, seed), 0)
        self._shared, self._row = shared, row
        self.id, self.generation, self.energy = id, generation, float(energy)
        self.learning_rate, self.discount = learning_rate, discount
        self.fitness = 0.0  # sum of rewards so far
        self.world: SoloWorld | None = None
        self.position: Position | None = None
        self._memory = None
        self._last_action = np.array([-1])  # nothing done yet
        self._trace: deque[_Deed] = deque(maxlen=window)
        self._mean_reward, self._rewards = 0.0, 0
        self._rng = np.random.default_rng([seed, id])
        if lora_adapter is not None:
            self.adapter = lora_adapter

    @classmethod
    def population(
        cls,
        count: int,
        base_model: str = "smollm2-135m",
        *,
        seed: int = 0,
        codec: TextCodec | None = None,
        adapter_config: AdapterConfig | None = None,
        dtype: Dtype = "auto",
        device: Device = "auto",
        **settings: Any,
    ) -> list["TinyLLMAgent"]:
        """Make `count` agents that share one base and one bank; `settings` as in the constructor."""
        shared = _share(base_model, count, codec, adapter_config, dtype, device, seed)
        return [cls(base_model, id=i, seed=seed, _shared=(shared, i), **settings) for i in range(count)]

    @property
    def alive(self) -> bool:
        """Whether any energy is left."""
        return self.energy > 0

    @property
    def adapter(self) -> Adapter:
        """A copy of the agent's LoRA tensors by PEFT's names; assign tensors or a PEFT folder to replace them."""
        return self._bank.read(self._row)

    @adapter.setter
    def adapter(self, adapter: str | Path | Mapping[str, Tensor]) -> None:
        if isinstance(adapter, Mapping):
            self._bank.write(self._row, adapter)
        else:
            self._shared.policy.network.load_adapter(self._row, adapter)
        self._shared.optimiser.forget(self._row)

    @property
    def hyperparameters(self) -> dict[str, float]:
        """What a child may inherit besides the adapter."""
        return {"learning_rate": self.learning_rate}

    @property
    def _bank(self) -> AdapterBank:
        return self._shared.policy.network.bank

    def enter(self, world: SoloWorld) -> None:
        """Be born into a world: take a position there, remembering nothing of worlds before."""
        self.world, self.position = world, world.start()
        self._memory, self._last_action = None, np.array([-1])
        self._trace.clear()

    def decide(self, observation: np.ndarray) -> int:
        """Read an observation (O,) and choose an action by its number; RuntimeError if the agent is dead."""
        if not self.alive:
            raise RuntimeError(f"agent {self.id} is dead and decides nothing")
        seen = np.asarray(observation)[None]
        self._memory = self._shared.codec.remember(self._memory, seen, self._last_action)
        self._last_action = self._shared.policy.act(
            self._texts(seen), np.array([self._row]), self._shared.codec.legal(seen), self._rng
        ).action
        return int(self._last_action[0])

    def act(self, action: int) -> float:
        """Do it in the world that was entered: move, take in what is eaten, and return the reward."""
        if self.world is None or self.position is None:
            raise RuntimeError(f"agent {self.id} is in no world: call agent.enter(world) first")
        self.position, reward, eaten = self.world.act(self.position, action)
        self.energy += eaten
        self.fitness += reward
        return reward

    def learn(self, observation: np.ndarray, action: int, reward: float) -> None:
        """Update this agent's adapter, and nothing else, from the reward of the action it just decided on."""
        require(bool(np.isfinite(reward)), "reward", reward, "finite")
        seen = np.asarray(observation)[None]
        legal = torch.from_numpy(self._shared.codec.legal(seen)[0])
        allowed = legal.nonzero()[:, 0].tolist()
        require(action in allowed, "action", action, f"one that is allowed here: {allowed}")
        self._trace.append(_Deed(self._texts(seen)[0], int(action), legal))
        surprise = reward - self._mean_reward
        self._rewards += 1
        self._mean_reward += surprise / min(self._rewards, 100)
        log_prob, _ = self._shared.policy.evaluate(
            [deed.text for deed in self._trace],
            torch.tensor([self._row]),
            torch.tensor([deed.action for deed in self._trace]),
            torch.stack([deed.legal for deed in self._trace]),
        )
        decay, own = self.discount ** torch.arange(len(self._trace) - 1, -1, -1), slice(self._row, self._row + 1)
        is_learning = torch.arange(len(self._bank)) == self._row
        rates = torch.full((len(self._bank),), self.learning_rate)
        loss = (-surprise * decay * log_prob).sum()
        self._shared.optimiser.minimise(own, loss, rates, max_norm=0.5, is_learning=is_learning)

    def die(self) -> None:
        """Lose all energy, and with it life."""
        self.energy = 0.0

    def save_lora(self, folder: str | Path) -> Path:
        """Write the adapter in PEFT's format; "{id}" and "{gen}" in the name are filled in. Returns the folder."""
        name = str(folder).replace("{id}", str(self.id)).replace("{gen}", str(self.generation))
        return self._shared.policy.network.save_adapter(self._row, name)

    def _texts(self, seen: np.ndarray) -> list[str]:
        if self._memory is None:
            raise RuntimeError(f"agent {self.id} has not decided on anything yet")
        return self._shared.codec.encode(seen, self._memory)


def _share(
    base_model: str,
    count: int,
    codec: TextCodec | None,
    adapters: AdapterConfig | None,
    dtype: Dtype,
    device: Device,
    seed: int,
) -> _Shared:
    codec, model = codec or ForageCodec(WorldConfig().view_radius), ModelConfig(base_model, dtype, device=device)
    policy = make_policy(model, adapters or AdapterConfig(), codec, count, seed)
    return _Shared(policy, codec, StackedAdam(policy.network.bank))
