"""What TensorBoard shows of a run: which figures, what they mean, and which belong together in a chart."""

from typing import NamedTuple


class Tag(NamedTuple):
    """A curve: its key in metrics.jsonl, and what TensorBoard says of it."""

    key: str
    meaning: str


TAGS = {
    "fitness/mean": Tag(
        "fitness_mean",
        "Mean return of all agents in worlds common to all, after learning. Runs called planner, greedy, frozen and so "
        "on are baselines: their mean in held-out worlds, measured once.",
    ),
    "fitness/max": Tag("fitness_max", "The fittest agent's return in worlds common to all, after learning."),
    "episode/food_eaten": Tag(
        "food_eaten_mean",
        "Items an agent eats in worlds common to all, mean over the agents. Baselines: in held-out worlds.",
    ),
    "episode/lifetime": Tag(
        "lifetime_mean",
        "Steps lived in worlds common to all, mean over the agents. Baselines: in held-out worlds.",
    ),
    "episode/success": Tag(
        "success_mean",
        "Share of the episodes that succeeded, by the world's own word, in worlds common to all, mean over the agents.",
    ),
    "learn/success": Tag(
        "rollout_success_mean",
        "Share of the episodes that succeeded in rollouts that are learned from, mean over "
        "agents and rollouts. An episode that a rollout's end cuts off counts only as an agent's first, so short ones "
        "weigh more than in common worlds.",
    ),
    "episode/reward": Tag("reward_mean", "Mean reward of a step, in rollouts that are learned from."),
    "episode/energy": Tag("energy_mean", "Energy at an episode's end in worlds common to all, mean over the agents."),
    "episode/env_restarts": Tag("env_restarts", "Copies of a world that failed and were made anew, in a generation."),
    "learn/approx_kl": Tag("approx_kl", "How far policies move while they learn from a rollout: KL, in nats, mean."),
    "learn/entropy": Tag("entropy", "Of the actions, in nats: 1.6 is chance among five, 0 is certainty."),
    "learn/mutual_information": Tag(
        "mutual_information", "Of action and text, in nats: 0 if what is done does not depend on what is read."
    ),
    "learn/kl_to_base": Tag("kl_to_base", "KL of an agent's actions from the model's without an adapter, in nats."),
    "learn/kl_exceeded": Tag(
        "kl_exceeded", "Agents whose policy had moved further than learn.max_kl, and was moved back to it."
    ),
    "learn/not_finite": Tag("not_finite", "Adapters with numbers that were not finite; they stayed as they were."),
    "learn/critic_not_finite": Tag("critic_not_finite", "How often the critic was not finite, and went back."),
    "learn/value_loss": Tag("value_loss", "Mean loss of the critic."),
    "learn/explained_variance": Tag(
        "explained_variance", "Share of the returns' variance that the critic foresees; 1 is all."
    ),
    "learn/clip_fraction": Tag("clip_fraction", "Share of steps whose probability ratio was clipped."),
    "learn/grad_norm": Tag("grad_norm", "Norm of an adapter's gradient before clipping, mean."),
    "evolve/diversity": Tag("diversity", "Mean distance between what two adapters do: Frobenius norm of B A - B' A'."),
    "evolve/kl_to_parent": Tag("kl_to_parent", "KL of newborns' actions from their parents', in nats, mean."),
    "time/decide_ms": Tag("decide_ms", "Milliseconds in which all agents together decide, median over a rollout."),
    "time/learn_s": Tag("learn_s", "Seconds in which all adapters learn from a rollout."),
    "time/update_ms": Tag("update_ms", "Milliseconds of one update of all adapters while agents act, median."),
}
"""By TensorBoard's tag; a world that knows no food or energy leaves those out."""

BASELINES = {
    "fitness/mean": "fitness",
    "episode/food_eaten": "food_eaten",
    "episode/success": "success",
    "episode/lifetime": "lifetime",
}
"""Tags beside which others' figures are drawn, and what the comparison in held-out worlds calls those."""

PARTS = {
    "fitness_of_": ("fitness/of_", "Mean return of the agents of this role in worlds common to all, after learning."),
    "success_of_": (
        "episode/success_of_",
        "Share of the episodes of this task that succeeded, in common worlds.",
    ),
    "rollout_success_of_": (
        "learn/success_of_",
        "The same of the episodes of this task, in rollouts that are learned from.",
    ),
}
"""How keys begin of which there are several, by role or by task: how their tags begin, and what they mean."""
HELD_OUT = "In held-out worlds, mean over all agents, at the end of a run; a longer run that goes on adds a point."
HEATMAP = "Frobenius norm of B A, all modules of a layer together: how far each agent's adapter has come from zero."
EPISODE = "The first world of a rollout that is learned from, every second step."

LAYOUT = {
    "Evolution": {
        "fitness": ["Multiline", ["fitness/mean", "fitness/max"]],
        "food eaten": ["Multiline", ["episode/food_eaten"]],
        "success": ["Multiline", ["episode/success", "learn/success"]],
        "diversity": ["Multiline", ["evolve/diversity"]],
    },
    "Learning": {
        "KL": ["Multiline", ["learn/approx_kl", "learn/kl_to_base", "evolve/kl_to_parent"]],
        "entropy and information": ["Multiline", ["learn/entropy", "learn/mutual_information"]],
        "explained variance": ["Multiline", ["learn/explained_variance"]],
    },
    "Time": {"decisions, ms": ["Multiline", ["time/decide_ms"]], "learning, s": ["Multiline", ["time/learn_s"]]},
}
"""TensorBoard's page of custom scalars: what belongs together in one chart."""
