"""SFTKey-Tag on Ray and DeepSpeed: whole tagged response first, key answer tokens second."""
