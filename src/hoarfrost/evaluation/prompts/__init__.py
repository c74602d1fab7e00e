"""What models are asked: prompt sets, long texts, and how they become token ids."""
