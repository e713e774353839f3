from demur.prompts.split import evenly
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
