"""Words for people: the one plural rule."""

import pytest

from manylens.method.observations import normalise_description
from manylens.text import singular, sure_share
from manylens.types import Misplaced

PLURALS = """
cat cats|box boxes|fox foxes|dish dishes|bench benches|beach beaches|watch watches|dress dresses
glass-box glass-boxes|cherry cherries|city cities|sky skies|pie pies|tie ties|movie movies|cookie cookies
zombie zombies|necktie neckties|leaf leaves|loaf loaves|knife knives|wife wives|life lives|wolf wolves|shelf shelves
half halves|thief thieves|hoof hooves|scarf scarves|glove gloves|sleeve sleeves|wave waves|olive olives|valve valves
groove grooves|dove doves|beehive beehives|bus buses|gas gases|lens lenses|virus viruses|cactus cactuses
octopus octopuses|iris irises|canvas canvases|house houses|horse horses|rose roses|vase vases|nurse nurses
blouse blouses|case cases|tortoise tortoises|potato potatoes|tomato tomatoes|hero heroes|shoe shoes|canoe canoes
toe toes|axe axes|tax taxes|moustache moustaches|woman women|man men|child children|foot feet|tooth teeth|mouse mice
prize prizes|judge judges|key keys|panda pandas
"""


@pytest.mark.parametrize("pair", PLURALS.replace("\n", "|").strip("|").split("|"))
def test_a_plural_is_its_singular_and_a_singular_is_itself(pair: str) -> None:
    one, many = pair.split()
    assert singular(many) == one
    assert singular(one) == one


@pytest.mark.parametrize(
    "one, other",
    [
        ("glass", "glasses"),
        ("new", "news"),
        ("painter", "painting"),
        ("len", "lens"),
        ("short", "shorts"),
        ("bus", "bush"),
        ("universe", "university"),
        ("species", "spice"),
        ("ga", "gas"),
    ],
)
def test_different_words_stay_different(one: str, other: str) -> None:
    assert singular(one) != singular(other)


@pytest.mark.parametrize("word", ["news", "bus", "gas", "species", "series", "glasses", "iris", "yes", "is", "chess"])
def test_what_is_no_plural_stays_as_it_is(word: str) -> None:
    assert singular(word) == word


def test_descriptions_in_either_number_are_one_wording() -> None:
    assert normalise_description("Two red cherries, boxes") == normalise_description("two red cherry box")


@pytest.mark.parametrize(
    ("confidence", "said"), [(1.0, "100%"), (0.9999, "99%"), (0.995, "99%"), (0.984, "98%"), (0.0, "0%")]
)
def test_what_is_not_certain_is_never_called_100_percent_sure(confidence: float, said: str) -> None:
    assert sure_share(confidence) == said


def test_an_estimate_says_what_it_rests_on() -> None:
    checked = Misplaced(0.12, 0.06, 0.2)
    assert checked.line == "An estimated 12.0% of the assigned pictures are misplaced (95% interval 6.0% to 20.0%)."
    own = Misplaced(0.12, 0.06, 0.2, "looks")
    assert own.line == checked.line[:-1] + ", by how sure the model says it is: it cannot check its own answers."
    assert Misplaced.from_dict(own.to_dict()) == own
    assert Misplaced.from_dict({"share": 0.1, "low": 0.0, "high": 0.2}).basis == "answers", "as runs of before have it"
