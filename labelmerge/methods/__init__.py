"""The methods: ways to supervise training."""
