"""Control tasks, step by step beside Gymnasium's own."""

import gymnasium
import numpy as np
import pytest
import torch

from cliplab.lab.games.control import TASKS, Control

# Box2D warns while it is imported, and crashes where that is an error.
box2d = pytest.mark.filterwarnings("ignore")


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["CartPole", "Acrobot"])
def test_the_equations_are_gymnasiums(name):
    """Take every step again in a plain environment: observations, rewards, ends."""
    task, rng = TASKS[name], np.random.default_rng(0)
    physics, every = task.physics([1, 2], 3), np.ones((2, 3), dtype=bool)
    single = gymnasium.make(f"{name}-v1").unwrapped
    single.reset()
    physics.restart(every, rng.random((2, 3, 4)))
    ended = 0
    for _ in range(300):
        before = physics.state.copy()
        actions = rng.integers(task.actions, size=(2, 3))
        rewards, over = physics.advance(actions, every)
        for place in np.ndindex(2, 3):
            single.state, single.steps_beyond_terminated = before[:, *place], None
            seen, reward, terminated, *_ = single.step(int(actions[place]))
            np.testing.assert_allclose(physics.observe()[place], seen, rtol=1e-6, atol=1e-6)
            assert (reward, terminated) == (rewards[place], over[place])
        ended += int(over.sum())
        physics.restart(over, rng.random((2, 3, 4)))
    assert ended or name == "Acrobot"  # which random actions rarely swing up


def test_acrobot_ends_when_its_tip_is_high_enough():
    physics = TASKS["Acrobot"].physics([0], 2)
    physics.state[0] = [[3.1, 1.0]]
    rewards, over = physics.advance(np.array([[1, 1]]), np.ones((1, 2), dtype=bool))
    assert over.tolist() == [[True, False]]
    assert rewards.tolist() == [[0.0, -1.0]]


@box2d
def test_lunar_lander_is_gymnasiums():
    physics = TASKS["LunarLander"].physics([5], 2)
    every, luck = np.ones((1, 2), dtype=bool), np.zeros((1, 2, 4))
    physics.restart(every, luck)
    singles = [gymnasium.make("LunarLander-v3").unwrapped for _ in range(2)]
    for e, single in enumerate(singles):
        np.testing.assert_array_equal(physics.observe()[0, e], single.reset(seed=5000 + e)[0])
    for t in range(40):
        rewards, over = physics.advance(np.array([[t % 4, 2]]), every)
        for e, (single, action) in enumerate(zip(singles, (t % 4, 2), strict=True)):
            seen, reward, terminated, *_ = single.step(action)
            np.testing.assert_array_equal(physics.observe()[0, e], seen.astype(float))
            assert (reward, terminated) == (rewards[0, e], over[0, e])


def test_a_step_after_the_end_only_begins_an_episode():
    control, g = Control(TASKS["CartPole"], [0, 1], 2), generator(0)
    ended, running = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2)
    latest = torch.full((2, 2), 22.0, dtype=torch.float64)
    for _ in range(120):
        step = control.step(torch.randint(2, (2, 2), generator=g), torch.rand(2, 2, 4, generator=g))
        assert torch.equal(step.valid, ~ended)
        assert torch.equal(step.reward, step.valid.float())
        assert (control.observation[~step.valid].abs() <= 0.05).all()
        running = (running + step.reward).where(step.valid, 0.0)
        ended = step.terminated | step.truncated
        assert not (ended & ~step.valid).any()
        latest = torch.where(ended, running.double(), latest)
        assert torch.equal(torch.from_numpy(control.latest), latest)
    assert (latest != 22).sum() >= 3


def test_the_time_limit_truncates():
    control = Control(TASKS["CartPole"], [0], 3)
    luck = torch.full((1, 3, 4), 0.5)  # every state begins at 0
    for t in range(502):
        place, moving, angle, turning = control.observation.unbind(-1)
        push = angle + 0.5 * turning + 0.02 * place + 0.05 * moving > 0
        step = control.step(push.long(), luck)
        assert not step.terminated.any()
        assert step.truncated.all() == (t == 500)
    assert (control.latest == 500).all()


@box2d
@pytest.mark.parametrize("name", list(TASKS))
def test_what_a_run_meets_does_not_depend_on_the_others(name):
    task, g = TASKS[name], generator(1)
    alone, beside = Control(task, [5], 2), Control(task, [9, 5], 2)
    for _ in range(60):
        actions = torch.randint(task.actions, (2, 2), generator=g)
        luck = torch.rand(2, 2, 4, generator=g)
        alone.step(actions[1:], luck[1:])
        beside.step(actions, luck)
        assert torch.equal(alone.observation[0], beside.observation[1])
        assert not torch.equal(beside.observation[0], beside.observation[1])


def test_random_returns_are_measured():
    control, g, found = Control(TASKS["CartPole"], range(16), 16), generator(8), []
    for _ in range(300):
        luck = torch.rand(16, 16, 4, generator=g)
        step = control.step(torch.randint(2, (16, 16), generator=g), luck)
        ended = (step.terminated | step.truncated).numpy()
        found.extend(control.latest[ended])
    assert np.mean(found) == pytest.approx(TASKS["CartPole"].random, abs=0.8)


def test_thresholds_and_limits_are_those_that_gymnasium_registers():
    for name, version in (("CartPole", 1), ("Acrobot", 1), ("LunarLander", 3)):
        spec, task = gymnasium.spec(f"{name}-v{version}"), TASKS[name]
        assert (spec.reward_threshold, spec.max_episode_steps) == (task.good, task.limit)
    regret = TASKS["Acrobot"].regret(torch.tensor([-499.0, -100.0]))
    assert regret.tolist() == [1.0, 0.0]
