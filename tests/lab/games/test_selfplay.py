"""Networks that play: shapes, search with them, self-play on every board, learning."""

from collections import Counter

import gymnasium
import numpy as np
import pytest
import torch
from needs import need

from cliplab.lab.games.arena import match, random_player
from cliplab.lab.games.boards import BOARDS, board
from cliplab.lab.games.environments import IDS
from cliplab.lab.games.network import (
    BoardNet,
    evaluator,
    legal_log_softmax,
    legal_policy,
    policy_player,
    sampling_player,
    search_player,
)
from cliplab.lab.games.search import search
from cliplab.lab.games.selfplay import Replay, draw_moves, member_evaluator, play, search_moves
from cliplab.lab.training.ensemble import Ensemble

pyspiel = need("pyspiel", "games")


@pytest.mark.parametrize("name", BOARDS)
def test_a_new_network_knows_nothing_and_has_no_buffers(name: str) -> None:
    one = board(name)
    net = BoardNet(one, 8, 2, seed=3)
    states = [one.load().new_initial_state()]
    out = net(torch.from_numpy(one.observe(states)))
    assert out.shape == (1, one.actions + 1)
    assert (out == 0).all(), "the uniform policy, and a drawn game"
    assert not list(net.buffers())
    again = BoardNet(one, 8, 2, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    out.square().sum().backward()
    out = net(torch.from_numpy(one.observe(states)))
    (out[:, 0].sum() - out[:, -1].sum()).backward()
    assert net.policy.weight.grad.abs().sum() > 0, "zero heads learn all the same"
    assert net.value.weight.grad.abs().sum() > 0


def test_the_legal_softmax_gives_nothing_to_illegal_moves() -> None:
    logits = torch.tensor([[9.0, 1.0, 1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    legal = torch.tensor([[False, True, True], [False, False, False]])
    log = legal_log_softmax(logits, legal)
    torch.testing.assert_close(log.exp()[0], torch.tensor([0.0, 0.5, 0.5]))
    assert log[1].isfinite().all(), "a game that is over has no legal move: no nan either"
    log[0, 1].backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", BOARDS)
def test_self_play_keeps_to_the_rules_and_knows_who_won(name: str) -> None:
    """Every recorded game, played again by the rules alone, has the recorded outcomes."""
    one, limit = board(name), 12 if name == "chess" else 0
    env = gymnasium.make_vec(IDS[name], num_envs=6, max_moves=limit, random_moves=2)
    env.reset(seed=4)
    ensemble = Ensemble(lambda seed: BoardNet(one, 4, 1, seed=seed), {"none": None}, [0, 1])
    games = play(env, 2, draw_moves(ensemble, torch.Generator().manual_seed(0)))
    assert games.moves == int(games.valid.sum())
    assert 0 <= sum(map(len, games.histories)) - games.moves <= 12, "0 to 2 random first moves each"
    taken = games.legal.gather(-1, games.action[..., None])[..., 0]
    assert taken[games.valid].all(), "only legal actions are counted"
    for member in range(2):
        expected: Counter[tuple[int, float]] = Counter()
        for history in games.histories[3 * member : 3 * member + 3]:
            state = one.load().new_initial_state()
            movers = []
            for action in history:
                movers.append(state.current_player())
                state.apply_action(action)
            over = state.is_terminal()
            assert over or len(history) == limit
            results = [state.returns()[mover] if over else 0.0 for mover in movers]
            expected.update(zip(history, results, strict=True))
        valid = games.valid[member]
        actions, outcomes = games.action[member][valid], games.outcome[member][valid]
        found = Counter(zip(actions.tolist(), outcomes.tolist(), strict=True))
        assert found <= expected


def test_random_first_moves_follow_the_seed() -> None:
    env = gymnasium.make_vec(IDS["go5"], num_envs=20, random_moves=3)
    seen = [env.reset(seed=seed)[0] for seed in (1, 1, 2)]
    assert (seen[0] == seen[1]).all()
    assert (seen[0] != seen[2]).any()
    assert {state.move_number() for state in env.states} == {0, 1, 2, 3}


def test_members_must_share_the_games_evenly() -> None:
    env = gymnasium.make_vec(IDS["tic_tac_toe"], num_envs=5)
    with pytest.raises(ValueError, match="5 games cannot be shared by 2 members"):
        play(env, 2, draw_moves(torch.nn.Identity(), torch.Generator()))


def test_search_with_a_network_uses_its_priors_and_values() -> None:
    one = board("tic_tac_toe")
    net = BoardNet(one, 8, 1, seed=0)
    with torch.no_grad():
        net.policy.bias[4] = 5.0
        net.value.bias[0] = 0.3
    states = [one.load().new_initial_state()]
    priors, values = evaluator(net, one)(states, [0])
    assert priors.sum() == pytest.approx(1)
    assert priors.argmax() == 4
    assert values[0] == pytest.approx(np.tanh(0.3), abs=1e-6)
    visits, _ = search(states, evaluator(net, one), simulations=10)
    assert visits[0].argmax() == policy_player(net, one)(states)[0] == 4
    assert search_player(net, one, 10)(states) == [4]
    drawn = sampling_player(net, one, 0)(states * 2000)
    assert np.mean(np.array(drawn) == 4) == pytest.approx(priors[0, 4], abs=0.03)


def test_every_member_searches_with_its_own_network() -> None:
    one, seeds = board("connect_four"), [0, 1, 2]
    ensemble = Ensemble(lambda seed: BoardNet(one, 4, 1, seed=seed), {"none": None}, seeds)
    generator = torch.Generator().manual_seed(0)
    for p in ensemble.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    env = gymnasium.make_vec(IDS["connect_four"], num_envs=6, random_moves=5)
    env.reset(seed=1)
    owners = np.array([0, 0, 1, 1, 2, 2])
    together = member_evaluator(ensemble, env, owners, 3)
    chosen = [5, 2, 3, 0]  # in any order, and not all of them
    priors, values = together([env.states[i] for i in chosen], chosen)
    for row, i in enumerate(chosen):
        net = ensemble.network(owners[i])
        prior, value = evaluator(net, one)([env.states[i]], [0])
        assert priors[row] == pytest.approx(prior[0], abs=1e-5)
        assert values[row] == pytest.approx(value[0], abs=1e-5)


@pytest.mark.parametrize("name", ["connect_four", "go7", "chess"])
def test_self_play_with_search_gives_shares_of_visits_as_targets(name: str) -> None:
    one = board(name)
    env = gymnasium.make_vec(IDS[name], num_envs=4, max_moves=4)
    ensemble = Ensemble(lambda seed: BoardNet(one, 2, 1, seed=seed), {"none": None}, [0, 1])
    choose = search_moves(ensemble, env, np.random.default_rng(0), simulations=3, free=2)
    games = play(env, 2, choose)
    assert games.target is not None
    shares = games.target[games.valid]
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))
    assert (shares[~games.legal[games.valid]] == 0).all()
    assert (shares.gather(1, games.action[games.valid][:, None]) > 0).all()


def test_a_network_that_is_not_finite_plays_legal_moves() -> None:
    """A frozen member keeps its last finite weights, whose outputs need not be finite."""
    one, seeds = board("go5"), [0, 1]
    ensemble = Ensemble(lambda seed: BoardNet(one, 4, 1, seed=seed), {"none": None}, seeds)
    for p in ensemble.parameters():
        p.data[1] = 1e30
    net = ensemble.network(1)
    states = [one.load().new_initial_state() for _ in range(4)]
    for state in states:
        state.apply_action(0)
    assert not net(torch.from_numpy(one.observe(states)))[:, :-1].isfinite().all()
    priors, values = evaluator(net, one)(states, range(4))
    assert np.isfinite(values).all()
    legal = one.legal(states)
    np.testing.assert_allclose(priors, legal / legal.sum(1, keepdims=True), rtol=1e-5)
    rival = random_player(np.random.default_rng(0))
    for player in (
        policy_player(net, one),
        sampling_player(net, one, 0),
        search_player(net, one, 3),
    ):
        assert np.isfinite(match(one, player, rival, [[0]])).all()
    env = gymnasium.make_vec(IDS["go5"], num_envs=4, max_moves=6)
    env.reset(seed=0)
    for choose in (
        draw_moves(ensemble, torch.Generator().manual_seed(0)),
        search_moves(ensemble, env, np.random.default_rng(0), simulations=2, free=2),
    ):
        games = play(env, 2, choose)
        taken = games.legal.gather(-1, games.action[..., None])[..., 0]
        assert taken[games.valid].all()


def test_the_legal_policy_is_the_softmax_where_logits_are_finite() -> None:
    logits = torch.tensor([[3.0, -1.0, 0.5], [torch.inf, 0.0, 0.0]])
    legal = torch.tensor([[True, True, False], [True, False, True]])
    policy = legal_policy(logits, legal)
    torch.testing.assert_close(policy[0], legal_log_softmax(logits, legal)[0].exp())
    torch.testing.assert_close(policy[1], torch.tensor([0.5, 0.0, 0.5]))


def test_a_replay_buffer_draws_valid_positions_of_the_last_rounds_alike() -> None:
    one = board("connect_four")
    env = gymnasium.make_vec(IDS["connect_four"], num_envs=4, max_moves=6)
    ensemble = Ensemble(lambda seed: BoardNet(one, 2, 1, seed=seed), {"none": None}, [0, 1])
    choose = search_moves(ensemble, env, np.random.default_rng(0), simulations=2, free=3)
    replay, rounds = Replay(2), []
    for number in range(3):
        games = play(env, 2, choose)
        games.outcome[0], games.outcome[1] = 10 + number, 20 + number  # member and round
        if number == 1:
            games.valid[:, :5] = False
            games.seen[:, :5] = torch.nan
        replay.append(games)
        rounds.append(games)
    seen, legal, target, outcome = replay.draw(4000, torch.Generator().manual_seed(0))
    assert seen.shape == (2, 4000, *one.shape)
    assert seen.isfinite().all(), "only valid positions"
    assert set(outcome[0].tolist()) == {11, 12}
    assert set(outcome[1].tolist()) == {21, 22}
    assert (target[~legal] == 0).all()
    torch.testing.assert_close(target.sum(-1), torch.ones(2, 4000))
    counts = [int(games.valid[0].sum()) for games in rounds[1:]]
    share = float((outcome[0] == 11).float().mean())
    assert share == pytest.approx(counts[0] / sum(counts), abs=0.03)


def test_a_replay_buffer_needs_targets() -> None:
    env = gymnasium.make_vec(IDS["tic_tac_toe"], num_envs=2)
    one = board("tic_tac_toe")
    ensemble = Ensemble(lambda seed: BoardNet(one, 2, 1, seed=seed), {"none": None}, [0])
    games = play(env, 1, draw_moves(ensemble, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="needs targets"):
        Replay(2).append(games)


def test_self_play_with_outcomes_learns_tic_tac_toe() -> None:
    """An actor-critic on the outcomes of its own games, from random openings."""
    one, seeds = board("tic_tac_toe"), [0, 1]
    ensemble = Ensemble(lambda seed: BoardNet(one, 8, 1, seed=seed), {"none": None}, seeds)
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=0.1, momentum=0.9)
    env = gymnasium.make_vec(IDS["tic_tac_toe"], num_envs=64, random_moves=3)
    env.reset(seed=0)
    choose = draw_moves(ensemble, torch.Generator().manual_seed(0))
    for _ in range(60):
        games = play(env, 2, choose)
        out = ensemble(games.seen)
        log = legal_log_softmax(out[..., :-1], games.legal)
        taken = log.gather(-1, games.action[..., None])[..., 0]
        gain = games.outcome - out[..., -1]
        entropy = -(log.exp() * log.clamp(min=-50)).sum(-1)
        loss = gain.square() - gain.detach() * taken - 0.1 * entropy
        losses = (loss * games.valid).sum(1) / games.valid.sum(1)
        optimizer.zero_grad()
        losses.sum().backward()
        ensemble.clip()
        ensemble.step(optimizer, losses)
    for index in range(2):
        player = policy_player(ensemble.network(index), one)
        results = match(one, player, random_player(np.random.default_rng(1)), [[]] * 100)
        assert results.mean() > 0.3, "two players without a clue draw even: 0"
