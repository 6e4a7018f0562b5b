"""Playing a saved policy in Gymnasium, and drawing it."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from test_policy import make_policy

from jaxrl.episodes import Episodes, play, play_gymnax
from jaxrl.play import main
from jaxrl.policy import load_policy
from jaxrl.report.pole import animate
from jaxrl.sweep import main as sweep

SMALL = ["--configs", "2", "--steps", "200", "--eval-episodes", "1", "--final-episodes", "1"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("play") / "run"
    options = ["--set", "hidden_sizes=[8]", "--device", "cpu", "--no-track"]
    assert sweep([*SMALL, *options, "--run-dir", str(path)]) == 0
    return path


def test_a_policy_that_holds_the_pole_is_scored_at_the_limit_and_a_bad_one_is_not():
    class Balancing:
        """Pushes to where the pole falls: a controller known to hold it."""

        env_id, num_actions, observation_mean = "CartPole-v1", 2, np.zeros(4)

        def act(self, observations):
            position, speed, angle, turning = observations.T
            lean = 0.1 * position + 0.3 * speed + 10 * angle + 2 * turning
            return (lean > 0).astype(int)

    class Pushing(Balancing):
        """Pushes left, always: the pole falls within about ten steps."""

        def act(self, observations):
            return np.zeros(len(observations), int)

    held = play(Balancing(), 12)
    assert held.limit == 500
    np.testing.assert_array_equal(held.returns, 500)
    assert held.first.shape == (501, 4)
    assert "at the limit of 500 steps: 100%" in held.describe()
    fallen = play(Pushing(), 12)
    assert (fallen.returns < 12).all()
    assert len(fallen.first) == fallen.returns[0] + 1
    assert "at the limit of 500 steps: 0%" in fallen.describe()


def test_both_environments_agree_on_how_good_a_policy_is(run_dir):
    policy = load_policy(run_dir / "best" / "1")
    ours, theirs = play_gymnax(policy, 200), play(policy, 200)
    assert (ours.limit, ours.first.shape[1]) == (500, 4)
    assert len(ours.first) == ours.returns[0] + 1
    error = np.hypot(ours.returns.std(), theirs.returns.std()) / np.sqrt(200)
    assert abs(ours.returns.mean() - theirs.returns.mean()) < 4 * error


def test_episodes_depend_on_their_seed_alone(run_dir):
    policy = load_policy(run_dir / "best" / "1")
    few, more, other = play(policy, 3), play(policy, 6), play(policy, 6, seed=1)
    np.testing.assert_array_equal(few.returns, more.returns[:3])
    assert not np.array_equal(few.first, other.first)


def test_a_line_tells_mean_error_spread_and_the_lowest():
    line = Episodes(
        np.array([500.0, 300.0]), np.array([500, 300]), 500, np.zeros((1, 4))
    ).describe()
    assert "mean return 400.00 (standard error 70.71)" in line
    assert "standard deviation 100.00, lowest 300, at the limit of 500 steps: 50%" in line
    punished = Episodes(np.array([-500.0, -80.0]), np.array([500, 81]), 500, np.zeros((1, 6)))
    assert "at the limit of 500 steps: 50%" in punished.describe()
    small = Episodes(np.array([0.96, 0.96]), np.array([5, 5]), 500, np.zeros((1, 4)))
    assert "mean return 0.96" in small.describe()
    assert "lowest 0.96," in small.describe()


def test_the_pole_is_drawn_where_it_is():
    upright, fallen = np.zeros(4), np.array([1.0, 0, 0.6, 0])
    film = Image.open(io.BytesIO(animate([upright, upright, fallen])))
    assert film.n_frames == 2  # every second step
    assert film.info["duration"] == 40

    def middle(colour):
        """Where that colour is on average, as shares of width and height."""
        pixels = np.array(film.convert("RGB")).astype(int)
        close = (np.abs(pixels - colour).sum(axis=-1) < 60).nonzero()
        return close[1].mean() / pixels.shape[1], close[0].mean() / pixels.shape[0]

    cart, pole = (29, 78, 216), (217, 119, 6)
    assert middle(cart)[0] == pytest.approx(0.5, abs=0.02)
    assert middle(pole)[0] == pytest.approx(0.5, abs=0.02)
    film.seek(1)
    assert middle(cart)[0] == pytest.approx(0.5 + 1 / 5.2, abs=0.02)  # a metre to the right
    assert middle(pole)[0] > middle(cart)[0] + 0.02  # it leans to the right


def test_the_command_writes_a_film_and_one_line(run_dir, tmp_path, capsys):
    film = tmp_path / "pole.gif"
    assert main([str(run_dir), "--episodes", "3", "--gif", str(film)]) == 0
    assert capsys.readouterr().out.startswith("mean return ")
    assert Image.open(film).format == "GIF"
    assert main([str(run_dir / "best" / "2"), "--episodes", "1", "--env-backend", "gymnax"]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--episodes", "0"], "--episodes 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--rank", "9"], "it has 1 to 2"),
        (["--gif", "/nowhere/pole.gif"], "--gif /nowhere/pole.gif"),
        (["--gif", "pole.mp4"], "what is written is a GIF"),
    ],
)
def test_what_cannot_be_done_is_one_line(run_dir, options, said, capsys):
    assert main([str(run_dir), "--episodes", "1", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_policy_whose_agent_diverged_is_one_line(tmp_path, capsys):
    policy = make_policy()
    name, weights = next(iter(policy.params.items()))
    broken = dataclasses.replace(policy, params={**policy.params, name: weights * np.nan})
    broken.write(tmp_path / "policy")
    assert main([str(tmp_path / "policy"), "--episodes", "1"]) == 2
    error = capsys.readouterr().err
    assert "its agent diverged" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("backend", ["gymnasium", "gymnax"])
def test_a_policy_of_another_environment_is_one_line(backend, tmp_path, capsys):
    dataclasses.replace(make_policy(), env_id="Acrobot-v1").write(tmp_path / "policy")
    assert main([str(tmp_path / "policy"), "--env-backend", backend]) == 2
    error = capsys.readouterr().err
    assert "sees 4 values" in error
    assert "Acrobot-v1 has 6 and 3" in error
    assert error.count("\n") == 1


def test_code_that_a_file_names_is_run_only_where_the_user_names_it_too(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "hostile.py").write_text("raise SystemExit('it was run')")
    monkeypatch.syspath_prepend(tmp_path)
    policy = dataclasses.replace(make_policy(), env_id="hostile:Thing")
    policy.write(tmp_path / "policy")
    for backend, said in (("gymnax", "name it (--env)"), ("gymnasium", "Gymnasium has no")):
        assert main([str(tmp_path / "policy"), "--env-backend", backend]) == 2
        assert said in capsys.readouterr().err
    own = dataclasses.replace(policy, network="flax.linen:Dense")
    own.write(tmp_path / "own")
    assert main([str(tmp_path / "own"), "--network", "flax.linen:Dense"]) == 2
    assert "name it (--env)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="it was run"):
        main([str(tmp_path / "policy"), "--env-backend", "gymnax", "--env", "hostile:Thing"])


def test_where_no_policy_is_that_is_said(tmp_path, capsys):
    for source, said in ((tmp_path, "no policy yet"), (tmp_path / "nowhere", "is not there")):
        assert main([str(source)]) == 2
        assert said in capsys.readouterr().err
