"""Rules, search and matches, on real games; tic-tac-toe is small enough to know the truth."""

import itertools
from functools import cache

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import need

from cliplab.lab.games.arena import (
    Player,
    elo,
    greedy_player,
    match,
    one_ply,
    one_ply_player,
    random_openings,
    random_player,
)
from cliplab.lab.games.boards import BOARDS, board
from cliplab.lab.games.environments import IDS, BoardEnv, BoardVectorEnv
from cliplab.lab.games.search import search

pyspiel = need("pyspiel", "games")


def position(name: str, *actions: int):
    state = board(name).load().new_initial_state()
    for action in actions:
        state.apply_action(action)
    return state


def uniform(states, games):
    """An evaluation that knows nothing."""
    return np.ones((len(states), states[0].num_distinct_actions())), np.zeros(len(states))


def rollouts(seed: int):
    """Values by one random game from each position."""
    generator = np.random.default_rng(seed)

    def evaluate(states, games):
        values = []
        for state in states:
            mover, copy = state.current_player(), state.clone()
            while not copy.is_terminal():
                copy.apply_action(int(generator.choice(copy.legal_actions())))
            values.append(copy.returns()[mover])
        return uniform(states, games)[0], np.array(values)

    return evaluate


def searcher(simulations: int, seed: int = 0) -> Player:
    evaluate = rollouts(seed)
    return lambda states: list(search(states, evaluate, simulations=simulations)[0].argmax(1))


@cache
def truth(history: tuple[int, ...]) -> float:
    """The value of a tic-tac-toe position for its mover, by exhaustive search."""
    state = position("tic_tac_toe", *history)
    if state.is_terminal():
        return -float(state.returns()[(len(history) - 1) % 2])
    return max(-truth((*history, a)) for a in state.legal_actions())


# Rules.


def test_a_stone_without_liberties_is_captured_and_ko_forbids_taking_back_at_once() -> None:
    go = position("go5")
    name = {go.action_to_string(0, a).split()[1]: a for a in go.legal_actions()}
    # black b3, c2, c4 and white d2, d4, e3 build a ko around c3 and d3
    for point in ("b3", "e3", "c2", "d2", "c4", "d4", "d3", "c3"):
        go.apply_action(name[point])
    stones = board("go5").observe([go])[0]
    row, column = 2, 3
    assert stones[2, row, column] == 1, "the black stone on d3 is captured: an empty point"
    assert name["d3"] not in go.legal_actions(), "taking back at once repeats the position"


def test_area_scoring_with_komi() -> None:
    pass_move = max(position("go5").legal_actions())
    assert position("go5", pass_move, pass_move).returns() == [-1.0, 1.0], "komi alone: white wins"
    one_stone = position("go5", 12, pass_move, pass_move)
    assert one_stone.returns() == [1.0, -1.0], "one stone owns the whole board: 25 > 0.5"


def test_a_fools_mate_ends_a_game_of_chess() -> None:
    chess = position("chess")
    for move in ("f3", "e5", "g4", "Qh4#"):
        chess.apply_action(chess.string_to_action(move))
    assert chess.returns() == [1.0, -1.0], "black, OpenSpiel's player 0, has won"


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four", "go5", "go7"])
def test_the_mover_sees_its_own_stones_in_the_same_plane(name: str) -> None:
    first, second = position(name), position(name, 1)
    third = position(name, 1, 4)
    seen = board(name).observe([second, third])
    own, other = (2, 1) if name == "tic_tac_toe" else (0, 1)
    assert seen[0, own].sum() == 0
    assert seen[0, other].sum() == 1
    assert seen[1, own].sum() == 1
    assert seen[1, other].sum() == 1
    assert seen[1, own].reshape(-1).nonzero()[0] == seen[0, other].reshape(-1).nonzero()[0]
    assert board(name).legal([first])[0].sum() == len(first.legal_actions())


def test_black_sees_chess_as_white_would_and_its_actions_mean_the_same() -> None:
    game = board("chess").load()
    castled = "r3k2r/pppq1ppp/2n5/8/8/8/PPPPPPPP/RNBQKBNR {} kq - 0 1"
    turned = "rnbqkbnr/pppppppp/8/8/8/2N5/PPPQ1PPP/R3K2R {} KQ - 0 1"
    black = game.new_initial_state(castled.format("b"))
    white = game.new_initial_state(turned.format("w"))
    seen = board("chess").observe([black, white])
    same = [plane for plane in range(len(seen[0])) if plane != 14]  # 14 is the side to move
    assert (seen[0, same] == seen[1, same]).all()
    assert seen[0, 14].mean() != seen[1, 14].mean()
    assert black.legal_actions() == white.legal_actions()


def test_an_unknown_board_names_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'shogi'.*connect_four.*chess"):
        board("shogi")


def test_a_game_begun_by_random_moves_is_not_over_and_has_that_many() -> None:
    generator = np.random.default_rng(0)
    states = [board("tic_tac_toe").begin(7, generator) for _ in range(30)]
    assert {state.move_number() for state in states} == {7}
    assert not any(state.is_terminal() for state in states)
    assert len({tuple(state.history()) for state in states}) > 1


# The environment.


@pytest.mark.parametrize("name", BOARDS)
def test_random_games_end_and_the_last_reward_is_the_winners(name: str) -> None:
    env = BoardEnv(name)
    generator = np.random.default_rng(0)
    _, info = env.reset(seed=0)
    rewards, over = [], False
    while not over and len(rewards) < 200:  # random chess takes longer: not to its end
        action = generator.choice(np.flatnonzero(info["legal"]))
        seen, reward, over, _, info = env.step(action)
        assert env.observation_space.contains(seen)
        rewards.append(reward)
    assert all(reward == 0 for reward in rewards[:-1])
    assert rewards[-1] in (-1, 0, 1)
    assert over != bool(info["legal"].any())


def test_gymnasium_takes_it_for_an_environment() -> None:
    check_env(BoardEnv("tic_tac_toe"), skip_render_check=True, skip_close_check=True)


@pytest.mark.parametrize("name", BOARDS)
def test_many_games_at_once_are_the_single_games(name: str) -> None:
    """``make_vec`` gives the batched environment; every game of it is a ``BoardEnv`` game."""
    many = gymnasium.make_vec(IDS[name], num_envs=3, max_moves=40)
    assert isinstance(many, BoardVectorEnv)
    singles = [gymnasium.make(IDS[name], max_moves=40).unwrapped for _ in range(3)]
    generator = np.random.default_rng(1)
    seen, info = many.reset(seed=0)
    state = [single.reset() for single in singles]
    running = np.ones(3, dtype=bool)
    for _ in range(45):
        assert many.observation_space.contains(seen)
        for i in np.flatnonzero(running):
            assert (seen[i] == state[i][0]).all()
            assert (info["legal"][i] == state[i][1]["legal"]).all()
        choices = [np.flatnonzero(row) if row.any() else [0] for row in info["legal"]]
        actions = np.array([generator.choice(choice) for choice in choices])
        seen, rewards, terminated, truncated, info = many.step(actions)
        for i in np.flatnonzero(running):
            own, reward, over, cut, told = singles[i].step(actions[i])
            assert (rewards[i], terminated[i], truncated[i]) == (reward, over, cut)
            state[i] = own, told
        assert (rewards[~running] == 0).all(), "a game that is over pays nothing"
        running &= ~(terminated | truncated)
        if not running.any():
            break
    assert not running.any()
    seen, info = many.reset(options={"reset_mask": np.array([True, False, False])})
    assert not many.terminated[0]
    assert not many.truncated[0]
    assert many.states[0].move_number() == 0
    assert many.states[1].move_number() > 0


def test_the_batched_environment_refuses_an_illegal_action_by_name() -> None:
    many = gymnasium.make_vec(IDS["tic_tac_toe"], num_envs=2)
    many.reset()
    many.step(np.array([4, 0]))
    with pytest.raises(ValueError, match="illegal action 0 in game 1 of tic_tac_toe"):
        many.step(np.array([0, 0]))


def test_an_illegal_action_is_refused_by_name() -> None:
    env = BoardEnv("tic_tac_toe")
    env.reset()
    env.step(np.int64(4))
    with pytest.raises(ValueError, match="illegal action 4 in tic_tac_toe"):
        env.step(np.int64(4))


# Search.


def test_search_finds_the_win_the_block_and_their_values() -> None:
    win, block = position("tic_tac_toe", 0, 3, 1, 4), position("tic_tac_toe", 0, 4, 1)
    visits, values = search([win, block], uniform, simulations=400)
    assert visits.argmax(1).tolist() == [2, 2]
    assert values[0] > 0.8
    assert values[1] < 0.2
    assert (visits.sum(1) == 400).all()
    assert visits[0, 0] == 0, "illegal moves are never tried"


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(9)), st.integers(2, 5))
def test_with_many_simulations_it_plays_tic_tac_toe_perfectly(order: list[int], depth: int) -> None:
    history = tuple(itertools.islice(order, depth))
    state = position("tic_tac_toe")
    for action in history:
        if state.is_terminal():
            return
        state.apply_action(action)
    if state.is_terminal():
        return
    visits, _ = search([state], uniform, simulations=3000, exploration=1.0)
    played = int(visits[0].argmax())
    assert -truth((*history, played)) == truth(history)


def test_games_searched_together_are_searched_as_if_alone() -> None:
    states = [position("connect_four", *range(k)) for k in range(4)]
    together, values = search(states, uniform, simulations=40)
    for state, visits, value in zip(states, together, values, strict=True):
        alone, own = search([state], uniform, simulations=40)
        assert (alone[0] == visits).all()
        assert own[0] == value


def test_priors_steer_and_noise_changes_them() -> None:
    state = position("connect_four")

    def centre(states, games):
        prior = np.zeros((len(states), 7))
        prior[:, 3] = 1.0
        return prior, np.zeros(len(states))

    visits, _ = search([state], centre, simulations=20)
    assert visits[0].argmax() == 3
    drawn = [
        search(
            [state],
            uniform,
            simulations=30,
            noise=(0.3, 0.5),
            generator=np.random.default_rng(seed),
        )[0].tolist()
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_search_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="simulations must be at least 1, got 0"):
        search([position("tic_tac_toe")], uniform, simulations=0)
    over = position("tic_tac_toe", 0, 3, 1, 4, 2)
    with pytest.raises(ValueError, match="over"):
        search([over], uniform, simulations=1)


def test_search_tells_the_evaluation_which_game_a_position_belongs_to() -> None:
    states = [position("connect_four", k) for k in (0, 3, 6)]
    first = [state.history()[0] for state in states]

    def evaluate(positions, games):
        assert [state.history()[0] for state in positions] == [first[game] for game in games]
        return uniform(positions, games)

    search(states, evaluate, simulations=30)


@pytest.mark.parametrize("name", ["go5", "go7", "chess"])
def test_search_runs_on_the_large_boards(name: str) -> None:
    visits, values = search([position(name)] * 2, uniform, simulations=12)
    assert visits.shape == (2, board(name).actions)
    assert (visits.sum(1) == 12).all()
    assert np.isfinite(values).all()


def test_search_finds_mate_in_one() -> None:
    chess = board("chess").load().new_initial_state("6k1/5ppp/8/8/8/8/8/R5K1 w - - 0 1")
    visits, _ = search([chess], uniform, simulations=200)
    assert chess.action_to_string(int(visits[0].argmax())) == "Ra8#"


# Matches.


def test_stronger_players_win_more() -> None:
    four = board("connect_four")
    weak = random_player(np.random.default_rng(0))
    middle = one_ply_player(np.random.default_rng(1))
    openings = random_openings(four, 10, 1, np.random.default_rng(2))
    assert match(four, middle, weak, openings).mean() > 0.5
    assert match(four, searcher(60), weak, openings[:5]).mean() > 0.7


def test_the_greedy_player_of_go_captures_and_ends_a_game_that_it_has_won() -> None:
    go = position("go5")
    name = {go.action_to_string(0, a).split()[1].lower(): a for a in go.legal_actions()}
    greedy = greedy_player(board("go5"), np.random.default_rng(0))
    for point in ("a2", "a1"):  # white's stone in the corner has one liberty left, b1
        go.apply_action(name[point])
    assert greedy([go]) == [name["b1"]]
    go.apply_action(name["b1"])
    go.apply_action(name["e5"])
    a_pass = board("go5").actions - 1
    assert greedy([go]) != [a_pass], "white has not passed: a pass would not end the game"
    go.apply_action(name["e4"])
    go.apply_action(a_pass)
    assert greedy([go]) == [a_pass], "after white's pass black's own ends it, and black leads"


def test_greedy_beats_random_at_go() -> None:
    go = board("go5")
    openings = random_openings(go, 5, 2, np.random.default_rng(0))
    weak = random_player(np.random.default_rng(1))
    assert match(go, one_ply(go, np.random.default_rng(2)), weak, openings).mean() > 0.6


def test_the_two_sides_of_a_match_add_up_to_zero() -> None:
    def first_legal(states):
        return [state.legal_actions()[0] for state in states]

    def last_legal(states):
        return [state.legal_actions()[-1] for state in states]

    four = board("connect_four")
    openings = random_openings(four, 3, 2, np.random.default_rng(0))
    ours = match(four, first_legal, last_legal, openings)
    theirs = match(four, last_legal, first_legal, openings)
    assert ours.shape == (6,)
    assert sorted(ours) == sorted(-theirs)


def test_elo_recovers_the_ratings_that_made_the_results() -> None:
    true = {"a": 0.0, "b": 150.0, "c": 400.0}
    results = {
        (x, y): 2 / (1 + 10 ** ((true[y] - true[x]) / 400)) - 1
        for x, y in itertools.combinations(true, 2)
    }
    found = elo(results, 100_000, zero="a")
    assert found == pytest.approx(true, abs=1)
    assert np.isfinite(elo({("a", "b"): 1.0}, 10, zero="b")["a"])
    with pytest.raises(ValueError, match="zero must be one of a, b"):
        elo({("a", "b"): 1.0}, 10, zero="z")
