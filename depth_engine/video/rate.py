"""Frame rates: the one parser of what users, files and ffmpeg say."""

from __future__ import annotations

import math
from fractions import Fraction


def as_frame_rate(fps: Fraction | float | int | str) -> Fraction:
    """A frame rate as an exact fraction: 25, "30000/1001"; 29.97 and its like become n * 1000 / 1001.

    Raises:
        ValueError: If it is not a positive number.
    """
    try:
        # NumPy's numbers are no numbers to Fraction.
        exact = Fraction(fps if isinstance(fps, (int, str, Fraction)) else float(fps))
        rate = exact.limit_denominator(100_000)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"fps: {fps!r} is not a frame rate, a number above 0 such as 25 or 30000/1001") from error
    if rate <= 0:
        raise ValueError(f"fps: {fps} is not a frame rate, a number above 0 such as 25 or 30000/1001")
    ntsc = Fraction(math.ceil(exact) * 1000, 1001)
    # Rounded to two or three digits, as players and ffmpeg print them.
    return ntsc if rate.denominator != 1 and abs(exact - ntsc) < Fraction(6, 1000) else rate
