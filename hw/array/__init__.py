"""The array engine: feeder, systolic array, drain."""
