import pytest

from bench.simulate import NOISES, SETTINGS, simulate
from bench.worlds import WORLDS, print_worlds, simulate_world


def test_second_looks_are_those_of_the_setting() -> None:
    found = {name: simulate(150, 5, 0, name, NOISES["12% wrong"]) for name in list(SETTINGS)[:4]}
    assert list(found) == ["default", "plain walk", "same second looks", "ask everything"]
    looked = {name: round(run["second looks"] * 150) for name, run in found.items()}
    assert looked["plain walk"] == 0
    assert 0 < looked["same second looks"] <= looked["default"] < looked["ask everything"]
    assert found["same second looks"]["judged/image"] > found["default"]["judged/image"]


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_is_run_with_and_without_a_writer(name: str) -> None:
    silent, writing = (simulate_world(WORLDS[name], 80, 5, 0, writes) for writes in (False, True))
    assert silent["writer calls"] == 0 < writing["writer calls"]
    for found in (silent, writing):
        assert 0.3 < found["NMI"] <= 1 and 0 < found["calls/image"] < 4 and found["K"] >= 2


def test_open_words_say_less_than_closed_ones() -> None:
    said = {name: simulate_world(WORLDS[name], 200, 5, 0, False)["descriptions"] for name in WORLDS}
    assert max(said, key=lambda name: said[name]) == "closed words"
    assert said["free prose"] < said["30 wordings"] < said["10 wordings"]


def test_the_worlds_have_a_row_for_each_number_of_images_and_writer(capsys: pytest.CaptureFixture[str]) -> None:
    print_worlds(["closed words", "10 wordings"], [60], 4, 1)
    rows = [line.split(" | ")[:3] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [[f"| {name}", "60", writer] for name in ("closed words", "10 wordings") for writer in ("yes", "no")]
