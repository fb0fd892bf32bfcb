"""Commands that measure the whole: accuracy on photographs, whole networks on every machine. Run them from the project's folder."""
