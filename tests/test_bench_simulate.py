from bench.simulate import NOISES, SETTINGS, simulate


def test_second_looks_are_those_of_the_setting() -> None:
    found = {name: simulate(150, 5, 0, name, NOISES["12% wrong"]) for name in list(SETTINGS)[:4]}
    assert list(found) == ["default", "plain walk", "same second looks", "ask everything"]
    looked = {name: round(run["second looks"] * 150) for name, run in found.items()}
    assert looked["plain walk"] == 0
    assert 0 < looked["same second looks"] <= looked["default"] < looked["ask everything"]
    assert found["same second looks"]["judged/image"] > found["default"]["judged/image"]
