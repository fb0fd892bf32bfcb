"""Controller for single data rate SDRAM, and the chips of the boards."""
