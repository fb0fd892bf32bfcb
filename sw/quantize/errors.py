"""What a user reads when a network cannot be quantized."""


class QuantizeError(ValueError):
    """An argument, a network or calibration data that the quantizer refuses.

    The message is one line that names the argument or module, the limit, the value and a way out.
    """


class QuantizedFileError(ValueError):
    """A file that is not a quantized network, or not an intact one. The message names the file and what is wrong with it."""
