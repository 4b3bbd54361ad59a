// In place of CUDA's header: its language for the CPU, and the calls that launch kernels.
#pragma once

#include "emulation.h"
#include "host_calls.h"
