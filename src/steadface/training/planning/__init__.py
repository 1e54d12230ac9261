"""What a training needs of each of its GPUs, by formula: memory, traffic and time, before anybody rents a machine."""
