def test_an_even_sample_holds_as_much_of_each_source():
    prompts = [
        Prompt(f"{source} {i}", "harmful", source=source)
        for source, count in (("a", 50), ("b", 5), ("c", 50))
        for i in range(count)
    ]
    sample = evenly(prompts, 25)
    counts = {source: sum(p.source == source for p in sample) for source in "abc"}
    assert counts == {"a": 10, "b": 5, "c": 10}
    assert len(evenly(prompts, 1000)) == len(prompts)
