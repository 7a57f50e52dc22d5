"""Stable-Baselines3: models that learn for real, some rollouts, against SB3's own clipping."""

import copy
import json
import math
import random
import zipfile

import numpy as np
import pytest
import torch
from needs import need
from refusing import BAD_CLIPPING
from torch import nn

from cliplab import Clipper, NonFiniteGradientError

need("stable_baselines3", "integrations")
import gymnasium  # noqa: E402
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback  # noqa: E402
from stable_baselines3.common.logger import KVWriter, Logger  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv  # noqa: E402

from cliplab.integrations.stable_baselines3 import Clip  # noqa: E402

NETS = {"net_arch": [8]}
SETTINGS = {
    A2C: {"n_steps": 8},
    PPO: {"n_steps": 32, "batch_size": 16, "n_epochs": 2},
    DQN: {"learning_starts": 16, "buffer_size": 200, "batch_size": 8, "train_freq": 4},
    SAC: {"learning_starts": 16, "buffer_size": 200, "batch_size": 8},
    TD3: {"learning_starts": 16, "buffer_size": 200, "batch_size": 8},
}
DISCRETE = (A2C, PPO, DQN)


class Episode(gymnasium.Env):
    """Episodes of ten steps without chance; ``bad``: the observation from which rewards are NaN."""

    observation_space = gymnasium.spaces.Box(-10, 10, (3,))

    def __init__(self, discrete=True, bad=math.inf):
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,))
        if discrete:
            self.action_space = gymnasium.spaces.Discrete(2)
        self.bad, self.t, self.steps = bad, 0, 0

    def seen(self):
        return np.sin(np.arange(3) * (1 + self.t)).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        self.steps += 1
        reward = math.nan if self.steps == self.bad else float(self.seen() @ [1, 2, 3]) * 5
        return self.seen(), reward * (1 + float(np.sum(action))), self.t == 10, False, {}


def make(kind, bad=math.inf, **settings):
    discrete = issubclass(kind, DISCRETE)
    env = DummyVecEnv([lambda: Episode(discrete, bad)])
    if discrete:
        settings = {"max_grad_norm": math.inf} | settings
    return kind(
        "MlpPolicy",
        env,
        policy_kwargs=dict(NETS),
        device="cpu",
        seed=0,
        **next(SETTINGS[base] for base in kind.__mro__ if base in SETTINGS) | settings,
    )


def weights(model):
    return {name: p.detach().clone() for name, p in model.policy.named_parameters()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", DISCRETE)
def test_weights_of_max_grad_norm_bit_for_bit(kind):
    own = make(kind, max_grad_norm=0.05).learn(128)
    clip = Clip(lambda module: Clipper(module, 0.05, eps=1e-6))
    ours = make(kind).learn(128, callback=clip)
    assert_same(weights(own), weights(ours))
    assert clip.clipper.history.clipped.any()
    assert_same(weights(make(kind).learn(128)), weights(make(kind, max_grad_norm=1e9).learn(128)))


def test_of_an_actor_and_a_critic_each_has_its_own_clipper():
    for kind in (SAC, TD3):
        clips = [Clip("norm", threshold=0.1, of=of) for of in ("actor", "critic")]
        model = make(kind)
        model.learn(64, callback=clips)
        for clip, net in zip(clips, (model.actor, model.critic), strict=True):
            assert [id(p) for p in clip.clipper.params] == [id(p) for p in net.parameters()]
            assert clip.clipper.history.norm_after.max() <= 0.1001
        assert len(clips[1].clipper.history) == 48
        assert len(clips[0].clipper.history) == (48 if kind is SAC else 24)


@pytest.mark.parametrize(
    ("kind", "of", "told"),
    [
        (SAC, "policy", r"SAC has \['actor.optimizer', 'critic.optimizer'\], got of='policy'"),
        (SAC, "ent_coef", "of='ent_coef'"),
        (PPO, "critic", r"PPO has \['policy.optimizer'\], got of='critic'"),
        (PPO, 3, "of=3"),
    ],
)
def test_an_optimizer_that_is_not_there_is_refused(kind, of, told):
    with pytest.raises(ValueError, match=told):
        make(kind).learn(16, callback=Clip("autoclip", of=of))


def test_two_of_one_optimizer_are_refused():
    with pytest.raises(ValueError, match=r"policy\.optimizer takes one Clip, got two"):
        make(PPO).learn(16, callback=[Clip("autoclip"), Clip("autoclip")])


@pytest.mark.parametrize(("clipping", "arguments", "told"), BAD_CLIPPING)
def test_bad_clipping_is_refused_by_name(clipping, arguments, told):
    with pytest.raises((ValueError, TypeError), match=told):
        make(PPO).learn(16, callback=Clip(clipping, **arguments))


def test_max_grad_norm_left_on_is_a_warning():
    with pytest.warns(
        UserWarning, match=r'max_grad_norm=0.5 clips, too.*max_grad_norm=float\("inf"'
    ):
        make(PPO, max_grad_norm=0.5).learn(32, callback=Clip("autoclip"))


class Rng(BaseCallback):
    """Random states and environments when learning begins: kept, or put back."""

    def __init__(self, kept=None):
        super().__init__()
        self.kept = kept

    def _on_training_start(self):
        if self.kept is None:
            legacy = np.random.get_state()  # noqa: NPY002
            self.kept = random.getstate(), legacy, torch.get_rng_state()
        random.setstate(self.kept[0])
        np.random.set_state(self.kept[1])  # noqa: NPY002
        torch.set_rng_state(self.kept[2])

    def _on_step(self):
        return True


def columns(clip):
    history = clip.clipper.history
    return torch.stack([history.norm_before, history.threshold, history.factor])


@pytest.mark.parametrize("kind", [A2C, PPO])
def test_a_model_goes_on_from_its_zip_bit_for_bit(kind, tmp_path):
    first = Clip("autoclip", percentile=30)
    model = make(kind).learn(128, callback=first)
    model.save(tmp_path / "model")
    env, steps = copy.deepcopy(model.env), len(first.clipper.history)
    rng = Rng()
    model.learn(128, callback=[rng, first], reset_num_timesteps=False)

    again = Clip("autoclip", percentile=30)
    loaded = kind.load(tmp_path / "model", env=env, device="cpu", force_reset=False)
    assert loaded.max_grad_norm == math.inf
    loaded.learn(128, callback=[Rng(rng.kept), again], reset_num_timesteps=False)
    assert_same(weights(model), weights(loaded))
    assert again.clipper.state_dict(plain=True) == first.clipper.state_dict(plain=True)
    assert again.clipper.history.first_step == steps == first.clipper.steps - steps
    assert torch.equal(columns(again), columns(first)[:, steps:])
    assert len(first.clipper.history) == 2 * steps


def test_a_checkpoint_within_learning_holds_the_state_of_its_step(tmp_path):
    clip = Clip("autoclip")
    make(PPO).learn(96, callback=[CheckpointCallback(40, tmp_path), clip])
    loaded = PPO.load(tmp_path / "rl_model_40_steps", device="cpu")
    assert loaded.clip_of_policy[0]["steps"] == 4
    assert clip.clipper.steps == 12


def test_the_zip_has_the_state_alone_and_it_loads_where_cliplab_is_not(tmp_path):
    make(PPO).learn(32, callback=Clip("norm")).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert len(json.dumps(json.loads(archive.read("data"))["clip_of_policy"])) < 1000
    loaded = PPO.load(tmp_path / "model", device="cpu")
    assert type(loaded.clip_of_policy[0]) is dict
    loaded.save(tmp_path / "again")
    again = PPO.load(tmp_path / "again", device="cpu", env=DummyVecEnv([Episode]))
    clip = Clip("norm")
    again.learn(32, callback=clip)
    assert clip.clipper.steps == 8


def test_learning_again_goes_on_and_another_method_has_to_begin_anew():
    clip = Clip("autoclip")
    model = make(PPO).learn(32, callback=clip)
    model.learn(32, callback=clip)
    assert len(clip.clipper.history) == clip.clipper.steps == 8
    new = Clip("autoclip")
    model.learn(32, callback=new)
    assert (new.clipper.steps, len(new.clipper.history), clip.clipper.steps) == (12, 4, 8)
    with pytest.raises(ValueError, match="differ in method"):
        model.learn(32, callback=Clip("zclip"))
    del model.clip_of_policy
    other = Clip("zclip")
    model.learn(32, callback=other)
    assert other.clipper.steps == 4


class Interrupt(BaseCallback):
    def _on_step(self):
        raise KeyboardInterrupt


def test_after_an_interruption_one_clipper_is_at_work():
    first, model = Clip("norm", threshold=0.1), make(PPO)
    with pytest.raises(KeyboardInterrupt):
        model.learn(32, callback=[first, Interrupt()])
    second = Clip("norm", threshold=0.1)
    model.learn(32, callback=second)
    assert (len(first.clipper.history), len(second.clipper.history)) == (0, 4)
    third = Clip("norm", threshold=0.1)
    model.learn(32, callback=third)
    assert (len(second.clipper.history), len(third.clipper.history)) == (4, 4)


class Lines(KVWriter):
    """An output of SB3's logger that keeps what it is given."""

    def __init__(self):
        self.lines = []

    def write(self, key_values, key_excluded, step):
        self.lines.append((step, dict(key_values)))

    def close(self):
        pass


@pytest.mark.parametrize("kind", [PPO, DQN])
def test_the_logger_gets_the_means_of_all_steps_since_its_last_line(kind):
    clip, kept, model = Clip("autoclip"), Lines(), make(kind)
    model.set_logger(Logger(None, [kept]))
    model.learn(96, callback=clip, log_interval=1)
    told = [line for _, line in kept.lines if "clip/norm_before" in line]
    history = clip.clipper.history
    if kind is PPO:
        assert [step for step, line in kept.lines if "clip/norm_before" in line] == [64, 96]
        means = [float(history.norm_before[i : i + 4].mean()) for i in (0, 4)]
        assert [line["clip/norm_before"] for line in told] == pytest.approx(means)
    assert len(told) > 1
    assert {"clip/factor", "clip/threshold", "clip/clipped", "clip/skipped"} <= told[0].keys()
    assert told[0]["clip/lr"] == pytest.approx(float(history.lr[0]))


def test_an_actor_and_a_critic_are_logged_apart():
    kept, model = Lines(), make(SAC)
    model.set_logger(Logger(None, [kept]))
    model.learn(64, callback=[Clip("norm", of="actor"), Clip("norm", of="critic")], log_interval=1)
    line = kept.lines[-1][1]
    assert {"clip/actor/norm_before", "clip/critic/norm_before"} <= line.keys()


class Frozen(BaseCallback):
    """Weights, moments and step counts of the optimizer at each step that learns nothing."""

    def __init__(self):
        super().__init__()
        self.states = []

    def _on_rollout_start(self):
        state = self.model.policy.optimizer.state_dict()["state"]
        moments = {
            f"{i}.{name}": value.clone()
            for i, entry in state.items()
            for name, value in entry.items()
        }
        self.states.append(weights(self.model) | moments)

    def _on_step(self):
        return True


def test_a_step_that_is_not_finite_is_no_step():
    clip, frozen = Clip("norm", threshold=1.0, nonfinite="skip"), Frozen()
    model = make(A2C, bad=20).learn(32, callback=[clip, frozen])
    skipped = clip.clipper.history.skipped.tolist()
    assert skipped == [False, False, True, False]
    before, after = frozen.states[2], frozen.states[3]
    assert_same(before, after)
    assert all(w.isfinite().all() for w in weights(model).values())


def test_a_step_that_is_not_finite_is_an_error_that_moves_nothing():
    model = make(A2C, bad=20)
    with pytest.raises(NonFiniteGradientError, match="norm is nan at step 2"):
        model.learn(32, callback=Clip("norm", threshold=1.0))
    assert all(w.isfinite().all() for w in weights(model).values())


class Named(PPO):
    """A PPO that holds a clipper itself, and names it among what it saves as tensors."""

    def _setup_model(self):
        super()._setup_model()
        self.clipper = Clipper(self.policy, 0.1)
        self.clipper.attach(self.policy.optimizer)

    def _get_torch_save_params(self):
        names, others = super()._get_torch_save_params()
        return [*names, "clipper"], others


def test_a_clipper_can_be_named_among_a_models_own_state_dicts(tmp_path):
    model = make(Named).learn(32)
    assert model.clipper.steps == 4
    model.save(tmp_path / "model")
    assert Named.load(tmp_path / "model", device="cpu").clipper.steps == 4


def test_another_callback_may_hold_it():
    from stable_baselines3.common.callbacks import CallbackList

    clip = Clip(lambda module: Clipper([*nn.ModuleList([module]).parameters()], 1.0))
    make(PPO).learn(32, callback=CallbackList([CallbackList([clip])]))
    assert len(clip.clipper.history) == 4
