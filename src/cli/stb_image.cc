// SPDX-License-Identifier: Apache-2.0
// The one place where the decoder is compiled: no files (it reads memory), no formats but those
// that the tool documents, no symbols outside this program's own.
#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_STDIO
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_ONLY_GIF
#define STBI_ONLY_PNM
#define STBI_MAX_DIMENSIONS 65535
#include <stb_image.h>
