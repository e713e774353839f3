import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.checkpoint import arithmetic, corrections

DTYPES = ["F32", "F16", "BF16"]
WIDTH = {"F32": 32, "F16": 16, "BF16": 16}
FINITE = {"F32": 0x7F7FFFFF, "F16": 0x7BFF, "BF16": 0x7F7F}


def exact(bits, dtype):
    value = arithmetic.to_float64(np.array([bits], arithmetic.BIT_TYPES[dtype]), dtype)[0]
    return Fraction(float(value))


def nearest_even(value, dtype):
    """Return the bits of the nearest number, by exact rational arithmetic and bisection."""
    low, high, target = 0, FINITE[dtype], abs(Fraction(value))
    step = exact(high, dtype) - exact(high - 1, dtype)
    if target >= exact(high, dtype) + step / 2:
        magnitude = high + 1
    else:
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if exact(middle, dtype) <= target else (low, middle - 1)
        magnitude = low
        if low < FINITE[dtype]:
            under, over = target - exact(low, dtype), exact(low + 1, dtype) - target
            if over < under or (over == under and low % 2):
                magnitude += 1
    return magnitude | (int(np.signbit(value)) << (WIDTH[dtype] - 1))


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_rounding_is_once_and_to_nearest_even(dtype, data):
    bits = data.draw(st.integers(0, FINITE[dtype] - 1))
    low, high = float(exact(bits, dtype)), float(exact(bits + 1, dtype))
    middle = (low + high) / 2
    value = data.draw(
        st.sampled_from([low, high, middle, np.nextafter(middle, low), np.nextafter(middle, high)])
        | st.floats(allow_nan=False, allow_infinity=False)
    )
    value *= data.draw(st.sampled_from([1, -1]))
    found = arithmetic.round_to_bits(np.array([value]), dtype)
    assert found.dtype == arithmetic.BIT_TYPES[dtype]
    assert int(found[0]) == nearest_even(value, dtype)


def test_bfloat16_is_not_rounded_twice():
    # Just above a tie of bfloat16, by less than float32 can hold.
    value = np.array([1 + 2**-8 + 2**-40, -(1 + 2**-8 + 2**-40), 1 + 2**-8])
    assert arithmetic.round_to_bits(value, "BF16").tolist() == [0x3F81, 0xBF81, 0x3F80]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_pattern_survives_both_ways(dtype):
    kind = arithmetic.BIT_TYPES[dtype]
    stride = 1 if WIDTH[dtype] == 16 else 65_537
    bits = np.arange(0, 1 << WIDTH[dtype], stride, dtype=np.uint64).astype(kind)
    np.testing.assert_array_equal(arithmetic.from_ordered(arithmetic.to_ordered(bits)), bits)
    finite = bits[(bits & kind.type((1 << (WIDTH[dtype] - 1)) - 1)) <= FINITE[dtype]]
    numbers = arithmetic.to_float64(finite, dtype)
    np.testing.assert_array_equal(arithmetic.round_to_bits(numbers, dtype), finite)
    order = np.argsort(arithmetic.to_ordered(finite))
    assert (np.diff(numbers[order]) >= 0).all()


def test_low_rank_sum_is_in_order_of_the_rank():
    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(3, 5)), rng.normal(size=(5, 4)) * 1e9
    total = arithmetic.low_rank_sum(up, down)
    for row in range(3):
        for column in range(4):
            wanted = 0.0
            for k in range(5):
                wanted += float(up[row, k]) * float(down[k, column])
            assert total[row, column] == wanted


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_corrections_turn_one_block_into_another(data):
    width = data.draw(st.sampled_from([16, 32]))
    numbers = st.integers(0, (1 << width) - 1)
    wanted = data.draw(st.lists(numbers, max_size=40))
    reverted = [data.draw(st.just(number) | numbers) for number in wanted]
    kind = f"<u{width // 8}"
    shape = (2, -1) if len(wanted) % 2 == 0 and wanted else (-1,)
    one = np.array(reverted, kind).reshape(shape)
    two = np.array(wanted, kind).reshape(shape)
    record, count = corrections.encode(one, two)
    assert count == int(np.count_nonzero(one != two))
    np.testing.assert_array_equal(corrections.correct(one, io.BytesIO(record)), two)


def test_few_small_corrections_take_two_bytes_each():
    wanted = np.arange(10_000, dtype="<u2")
    reverted = wanted.copy()
    reverted[::100] += 1
    record, count = corrections.encode(reverted, wanted)
    assert count == 100
    assert len(record) == 16 + 2 * 100


@pytest.mark.parametrize("damage", ["short", "long", "outside", "lengths", "open"])
def test_damaged_corrections(damage):
    wanted = np.arange(8, dtype="<u2")
    record, _ = corrections.encode(wanted + np.uint16(1), wanted)
    broken = {
        "short": record[:-1],
        "lengths": record[:7],
        "long": (1 << 50).to_bytes(8, "little") + record[8:],
        "outside": corrections.LENGTHS.pack(1, 1) + bytes([100, 1]),
        "open": corrections.LENGTHS.pack(1, 1) + bytes([0x81, 1]),
    }[damage]
    with pytest.raises(ValueError, match="record of corrections"):
        corrections.correct(wanted, io.BytesIO(broken))
