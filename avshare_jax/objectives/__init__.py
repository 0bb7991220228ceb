"""The pretraining objectives as pure functions of arrays: masking, negatives, MEP and CPP."""
