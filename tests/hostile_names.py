"""Names that users' files and classes can have, and that programs stumble over."""

MARKUP = "<script>alert('1')</script> & \"2\""
NAMES = (
    "$5% vs $6%",
    "#$1 #$2",
    "$100_vs_$200_date.mp4",
    r"\frac{",
    "two\nlines\tand \x1b[31mred\x07",
    "狗",
    "כלב",
    "_begins with an underscore",
    "not \udcff UTF-8",
    "x" * 300,
    MARKUP,
    "",
)
