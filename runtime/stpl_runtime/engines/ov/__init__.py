"""OpenVINO, on the CPU and on what else it runs on."""
