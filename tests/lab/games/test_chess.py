"""Chess seen one move ahead."""

import numpy as np
from needs import need

from cliplab.lab.games.chess import PIECES, begin, pieces_of, planes, replies

pyspiel = need("pyspiel", "games")


def position(fen):
    return pyspiel.load_game("chess").new_initial_state(fen)


def letters(pieces):
    return "/".join("".join(PIECES[code] for code in row) for row in pieces.reshape(8, 8))


def test_both_players_see_their_own_pieces_as_white_and_below():
    white, black = (position(f"k7/8/8/8/8/8/6r1/K6Q {turn} - - 0 1") for turn in "wb")
    assert letters(pieces_of([white])).endswith("/......r./K......Q")
    assert letters(pieces_of([black])) == "k......q/......R./" + 5 * "......../" + "K......."
    start = begin(1, 0, np.random.default_rng(0))
    assert planes(pieces_of(start)).sum() == 32


def test_replies_are_what_the_other_sees_after_each_move():
    states = begin(5, 7, np.random.default_rng(1))
    found = replies(states)
    assert found.action.tolist() == [a for state in states for a in state.legal_actions()]
    for game, action, pieces in zip(found.game, found.action, found.pieces, strict=True):
        assert (pieces_of([states[game].child(int(action))])[0] == pieces).all()


def test_mate_stalemate_and_material():
    state = position("7k/8/5KQ1/8/8/8/8/r7 w - - 0 1")
    found = replies([state])
    names = [state.action_to_string(int(action)) for action in found.action]
    ends = dict(zip(names, found.ends, strict=True))
    assert ends["Qg7#"] == 1
    assert np.isnan(ends["Kf7"])
    assert set(found.material()) == {4.0}
    stale = position("7k/8/5KQ1/8/8/8/8/8 w - - 0 1")
    assert 0 in replies([stale]).ends


def test_the_best_move_of_each_game():
    found = replies(begin(3, 2, np.random.default_rng(2)))
    wanted = np.random.default_rng(3).random(len(found.game))
    best = found.best(wanted)
    assert found.game[best].tolist() == [0, 1, 2]
    assert [wanted[found.game == g].max() for g in range(3)] == wanted[best].tolist()
