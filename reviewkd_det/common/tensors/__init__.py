"""How tensors are computed: compiled, counted, kept in memory."""
