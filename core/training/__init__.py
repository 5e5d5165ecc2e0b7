"""How a run learns: its state, one step, what is done to clusters between steps, the loop."""
