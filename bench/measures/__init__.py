"""What is measured: each thing has one definition, in one file, used for every backend."""
