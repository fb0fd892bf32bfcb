"""The integer graph: what the importers make, the reference executes and the compiler lowers."""
