"""Settings that every test shares."""

from absl import flags

# Grain's worker processes read absl's flags, which only absl.app.run would have parsed.
flags.FLAGS.mark_as_parsed()
