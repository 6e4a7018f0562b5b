"""The brake on wrong passwords, and where a server is reached."""

import pytest
from werkzeug.datastructures import Authorization

from jaxrl.server import login
from jaxrl.server.accounts import Account
from jaxrl.server.login import FREE_TRIES, SECONDS_A_TRY, Brake
from jaxrl.server.reach import Reach


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(login, "time", clock)
    return clock


def of(user, password):
    return Authorization("basic", {"username": user, "password": password})


def test_tries_are_used_up_by_wrong_passwords_and_come_back_with_time(clock):
    brake = Brake()
    for number in range(FREE_TRIES):
        assert brake.seconds_to_wait(of("a", str(number))) == 0
        brake.wrong(of("a", str(number)))
    assert brake.seconds_to_wait(of("b", "another")) == SECONDS_A_TRY
    clock.now += SECONDS_A_TRY - 1
    assert brake.seconds_to_wait(of("b", "another")) == pytest.approx(1)
    clock.now += 1
    assert brake.seconds_to_wait(of("b", "another")) == 0
    brake.wrong(of("b", "another"))
    assert brake.seconds_to_wait(of("b", "another")) == pytest.approx(SECONDS_A_TRY)
    clock.now += 1e9  # no more than at first
    for _ in range(FREE_TRIES):
        assert brake.seconds_to_wait(of("a", "x")) == 0
        brake.wrong(of("a", "x"))
    assert brake.seconds_to_wait(of("a", "x")) > 0


def test_whoever_was_let_in_is_not_held_up_until_the_password_changes(clock):
    brake = Brake()
    brake.right(of("me", "right"))
    for number in range(2 * FREE_TRIES):
        brake.wrong(of("me", str(number)))
    assert brake.seconds_to_wait(of("me", "right")) == 0
    assert brake.seconds_to_wait(of("me", "other")) > 0
    brake.wrong(of("me", "right"))
    assert brake.seconds_to_wait(of("me", "right")) > 0


def test_those_who_come_often_are_not_forgotten_first(clock, monkeypatch):
    monkeypatch.setattr(login, "_MOST_KNOWN", 2)
    brake = Brake()
    for user in ("me", "a", "me", "b"):
        brake.right(of(user, "right"))
    for number in range(2 * FREE_TRIES):
        brake.wrong(of("x", str(number)))
    assert brake.seconds_to_wait(of("me", "right")) == 0
    assert brake.seconds_to_wait(of("a", "right")) > 0


def test_users_and_passwords_are_told_apart(clock):
    brake = Brake()
    brake.right(of("ab", "c"))
    for number in range(2 * FREE_TRIES):
        brake.wrong(of("x", str(number)))
    assert brake.seconds_to_wait(of("a", "bc")) > 0


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://h.example", "https://me:a%2Fb%40c@h.example"),
        ("http://127.0.0.1:5000", "http://me:a%2Fb%40c@127.0.0.1:5000"),
    ],
)
def test_a_connection_string_holds_user_and_password(address, url):
    account = Account("me", "a/b@c")
    assert account.url(address) == url
    assert "a/b@c" not in repr(account)


def test_a_server_lets_in_the_names_it_is_reached_by_and_no_pattern():
    assert Reach.by_address("https://h.example/") == Reach(
        "https://h.example", ("h.example",), ("https://h.example",)
    )
    assert Reach.by_network("127.0.0.1", 5000) == Reach("http://127.0.0.1:5000")
    everywhere = Reach.by_network("0.0.0.0", 5000)
    assert everywhere.names
    assert all(name.endswith(":5000") and "*" not in name for name in everywhere.names)
    assert everywhere.address == f"http://{everywhere.names[0]}"
    assert Reach.by_network("::1", 5000).names == ("[::1]:5000",)
