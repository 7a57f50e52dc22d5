"""Games in lockstep, against OpenSpiel's rules."""

import numpy as np
import pytest
from needs import need

from cliplab.lab.games.connect_four import ConnectFour
from cliplab.lab.games.go import Go

GAMES = {
    "go(board_size=2,komi=0.5)": lambda games: Go(games, 2),
    "go(board_size=5,komi=0.5)": Go,
    "go(board_size=7,komi=7.5)": lambda games: Go(games, 7, 7.5),
    "connect_four": ConnectFour,
}


def draw(allowed, generator):
    """An allowed action of each game; a pass less often than others, or few games were long."""
    weights = generator.random(allowed.shape)
    weights[:, -1] *= 0.5
    return (allowed * weights).argmax(1)


@pytest.mark.parametrize("name", GAMES)
def test_rules_are_openspiels(name):
    game = need("pyspiel", "games").load_game(name)
    count, generator = 100, np.random.default_rng(0)
    games, states = GAMES[name](count), [game.new_initial_state() for _ in range(count)]
    while True:
        legal = games.legal()
        over = [state.is_terminal() for state in states]
        assert games.over.tolist() == over
        for i in np.flatnonzero(~games.over):
            assert np.flatnonzero(legal[i]).tolist() == states[i].legal_actions()
            assert states[i].current_player() == games.mover
        if all(over):
            break
        actions = draw(legal, generator)
        for i in np.flatnonzero(~games.over):
            states[i].apply_action(int(actions[i]))
        games.step(actions)
    assert games.result.tolist() == [state.returns()[0] for state in states]
    assert {-1.0, 1.0} <= set(games.result)


@pytest.mark.parametrize("name", ["go(board_size=5,komi=0.5)", "connect_four"])
def test_the_mover_sees_its_own_stones_first(name):
    game, generator = need("pyspiel", "games").load_game(name), np.random.default_rng(1)
    games, state = GAMES[name](1), game.new_initial_state()
    for _ in range(6):
        action = draw(games.legal(), generator)
        games.step(action)
        state.apply_action(int(action[0]))
        planes = np.array(state.observation_tensor(0)).reshape(game.observation_tensor_shape())
        own, other = planes[[games.mover, 1 - games.mover]]
        if isinstance(games, ConnectFour):
            own, other = own.T, other.T
        seen, size = games.seen()[0], own.size
        assert seen[:size].tolist() == own.ravel().tolist()
        assert seen[size : 2 * size].tolist() == other.ravel().tolist()
    if isinstance(games, Go):
        assert seen[-2:].tolist() == [0, 0]
        games.step(np.array([25]))
        assert games.seen()[0, -2:].tolist() == [1, 1]


def played(games, *actions):
    for action in actions:
        games.step(np.full(len(games.over), action))
    return games


def test_a_greedy_player_of_go_takes_stones_and_passes_when_that_wins():
    games = played(Go(1), 0, 1, 24, 25, 5, 25, 6, 25, 19)  # black may take white's stone 1 by 2
    games = played(games, 25)
    assert games.captures()[0].tolist() == [0, 0, 1] + 22 * [0]
    assert games.greedy(np.random.default_rng(0)).tolist() == [25]  # ahead, after a pass
    games = played(Go(1), 0, 1, 24, 25, 5, 23, 6, 22)
    assert games.greedy(np.random.default_rng(0)).tolist() == [2]


def test_area_is_stones_and_what_only_they_reach():
    games = played(Go(1), 1, 3, 6, 8, 11, 13, 16, 18, 21, 23)  # two walls, a column between them
    assert games.lead().tolist() == [-0.5]
    assert played(Go(1), 12).lead().tolist() == [24.5]


def test_a_greedy_player_of_connect_four_wins_and_defends():
    generator = np.random.default_rng(0)
    games = played(ConnectFour(20), 0, 1, 0, 1, 0, 1)
    assert set(games.greedy(generator)) == {0}
    games = played(ConnectFour(20), 0, 1, 0, 1, 0)
    assert set(games.greedy(generator)) == {0}


@pytest.mark.parametrize("name", ["go(board_size=5,komi=0.5)", "connect_four"])
def test_games_that_are_over_stay_as_they_are(name):
    games, generator = GAMES[name](40), np.random.default_rng(2)
    results = games.result.copy()
    over = games.over.copy()
    while not games.over.all():
        games.step(draw(games.legal(), generator))
        assert games.over[over].all()
        assert (games.result[over] == results[over]).all()
        results, over = games.result.copy(), games.over.copy()


def test_a_board_has_64_bits():
    with pytest.raises(ValueError, match="size = 8"):
        Go(1, 8)
