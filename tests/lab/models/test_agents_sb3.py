"""Our PPO against Stable-Baselines3's; needs ``pip install 'cliplab[lab,parity]'``.

The loop under test is the notebook's own: its cells are executed, down to the training loops.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from needs import need
from scipy.stats import t as student

from cliplab.lab.games.control import TASKS
from cliplab.lab.models.agents import ActorCritic

sb3 = need("stable_baselines3", "parity")

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "12_rl_control.ipynb"
ROLLOUTS, STEPS, EACH, WIDTH, LR, SEEDS = 100, 32, 16, 64, 1e-3, 8


@pytest.fixture
def notebook():
    """The names that the notebook defines up to its training loops."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code"]
    last = max(i for i, c in enumerate(code) if "loop" in c["metadata"].get("tags", []))
    names = {}
    for cell in code[: last + 1]:
        exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    names.update(copies=EACH, width=WIDTH)
    return names


def ours(names, lr=LR):
    """Mean latest return of every seed over the second half, and over all of the run."""
    many = [{"lr": lr, "threshold": 0.5}] * SEEDS
    ensemble, regrets = names["train"](
        "ppo", "CartPole", ROLLOUTS * STEPS * EACH, many, list(range(SEEDS))
    )
    assert ensemble.alive.all()
    task = TASKS["CartPole"]
    returns = task.good - (task.good - task.random) * regrets.mean(2)
    return np.stack([part.mean(0).numpy() for part in (returns[ROLLOUTS // 2 :], returns)])


def theirs():
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class Latest(BaseCallback):
        def _on_training_start(self):
            self.latest, self.means = np.full(EACH, TASKS["CartPole"].random), []

        def _on_step(self):
            for e, info in enumerate(self.locals["infos"]):
                if "episode" in info:
                    self.latest[e] = info["episode"]["r"]
            return True

        def _on_rollout_end(self):
            self.means.append(self.latest.mean())

    found = []
    for seed in range(SEEDS):
        model = sb3.PPO(
            "MlpPolicy",
            make_vec_env("CartPole-v1", n_envs=EACH, seed=100 * seed),
            learning_rate=lambda left: left * LR,
            n_steps=STEPS,
            batch_size=STEPS * EACH // 4,
            n_epochs=4,
            gamma=0.99,
            gae_lambda=0.95,
            clip_range=0.2,
            ent_coef=0.01,
            vf_coef=0.5,
            max_grad_norm=0.5,
            policy_kwargs={"net_arch": [WIDTH, WIDTH]},
            seed=seed,
            device="cpu",
        )
        latest = Latest()
        model.learn(ROLLOUTS * STEPS * EACH, callback=latest)
        found.append([np.mean(part) for part in (latest.means[ROLLOUTS // 2 :], latest.means)])
    return np.array(found).T


def interval(runs):
    """Where the mean of as many further runs is expected, 99 %."""
    half = student.ppf(0.995, len(runs) - 1) * runs.std(ddof=1) * (2 / len(runs)) ** 0.5
    return runs.mean() - half, runs.mean() + half


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_our_ppo_reaches_the_return_of_stable_baselines3(notebook):
    torch.set_num_threads(1)
    mine, peers, slow = ours(notebook), theirs(), ours(notebook, lr=LR / 30)
    for what, a, b, c in zip(("late", "mean"), mine, peers, slow, strict=True):
        low, high = interval(b)
        print(f"{what} return: {a.mean():.0f}, theirs {b.mean():.0f} [{low:.0f}, {high:.0f}]")
        print(f"  lr / 30: {c.mean():.0f}; {a.round()} against {b.round()}")
        assert low <= a.mean() <= high
        assert c.mean() < low  # a learner that is wrong would be noticed


@pytest.mark.filterwarnings("ignore")
def test_the_networks_start_alike():
    peer = sb3.PPO("MlpPolicy", "CartPole-v1", device="cpu").policy
    ours = ActorCritic(4, 2, seed=0)
    pairs = (
        (ours.actor_torso, peer.mlp_extractor.policy_net),
        (ours.critic_torso, peer.mlp_extractor.value_net),
        (ours.policy, peer.action_net),
        (ours.value, peer.value_net),
    )
    for own, other in pairs:
        weights = zip(own.parameters(), other.parameters(), strict=True)
        for a, b in weights:
            assert a.shape == b.shape
            if a.ndim == 2:
                torch.testing.assert_close(
                    torch.linalg.svdvals(a), torch.linalg.svdvals(b), atol=1e-4, rtol=1e-3
                )
            else:
                assert torch.equal(a, b)
