"""What a cache costs in accuracy, and what it saves in time and memory."""
