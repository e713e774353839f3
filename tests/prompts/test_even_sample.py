from demur.prompts.split import evenly, limit
from demur.prompts.types import Prompt


def test_an_even_sample_holds_as_much_of_each_source():
    sizes = {"a": 50, "b": 5, "c": 50}
    prompts = [
        Prompt(f"{source} {number}", "harmful", source=source)
        for source, size in sizes.items()
        for number in range(size)
    ]
    sample = evenly(prompts, 25)
    counts = {source: sum(p.source == source for p in sample) for source in sizes}
    assert counts == {"a": 10, "b": 5, "c": 10}
    assert len(evenly(prompts, 1000)) == len(prompts)


def test_what_is_taken_last_has_nothing_of_what_is_taken_first():
    prompts = [
        Prompt(f"{source} {side} {number}", side, source=source, pair=f"{source}{number}")
        for source in "ab"
        for number in range(40)
        for side in ("harmful", "twin")
    ]
    harmful, twins = ([p for p in prompts if p.kind == kind] for kind in ("harmful", "twin"))
    last = evenly(harmful, 20, last=True)
    assert len(last) == 20
    assert [p.pair for p in last] == [p.pair for p in evenly(twins, 20, last=True)]
    assert not set(last) & set(limit(harmful, 60))
    assert not set(last) & set(evenly(harmful, 60))
    assert set(last) <= set(evenly(harmful, 30, last=True))
