"""Long fuzzing of every reader of foreign bytes: `make fuzz`; short runs are part of the tests."""
