#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the pinned sources of versions.txt once, as static, position-independent archives, into a cache
# outside the checkout: ${NESTLING_CACHE:-${XDG_CACHE_HOME:-~/.cache}/nestling}.
#
#   third_party/build.sh [--only GROUP,...] [--print] [--tsan] [--toolchain FILE] [-DNAME=VALUE]...
#
#   --only       build these groups (default: all): xnnpack, pthreadpool, flatbuffers, sentencepiece
#   --print      print "<group>=<install prefix>" for each group
#   --tsan       instrument pthreadpool: a thread sanitizer that does not see its hand-over reports races that are none
#   --toolchain  CMake toolchain file for cross-compiling; -D goes to CMake with it
#
# Environment: NESTLING_CACHE, NESTLING_JOBS (default: all cores), CC, CXX.
#
# Each group has its own prefix, <group>-<key>, whose key covers the pins, the recipe below (its code, not its
# comments), the flags, the compiler and the toolchain file. A finished prefix is never written to again.
set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pins=$here/versions.txt
cache=${NESTLING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nestling}

groups=(xnnpack pthreadpool flatbuffers sentencepiece)
declare -A sources=(
  [xnnpack]="xnnpack pthreadpool cpuinfo fxdiv"
  [pthreadpool]="pthreadpool fxdiv"
  [flatbuffers]="flatbuffers"
  [sentencepiece]="sentencepiece"
)
toolchain=''
toolchain_args=()
sanitizer_flags=''

say() { printf 'third_party: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# ---- Recipes. $1: the folder with the unpacked sources, by name. $2: build folder. $3: install prefix. ----

configure() {  # configure SOURCE BUILD ARGS..., with c_flags and cxx_flags from the caller
  local source=$1 build=$2
  shift 2
  # The prefix map keeps the build folder out of __FILE__, so that archives do not depend on where they were built.
  # Sections, so that an app linked with --gc-sections carries only what it uses.
  local flags="-ffile-prefix-map=$source=${source##*/} -ffunction-sections -fdata-sections"
  cmake -S "$source" -B "$build" -G Ninja -Wno-dev \
    -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
    -DCMAKE_C_VISIBILITY_PRESET=hidden -DCMAKE_CXX_VISIBILITY_PRESET=hidden \
    -DCMAKE_VISIBILITY_INLINES_HIDDEN=ON \
    -DCMAKE_C_FLAGS="$flags ${c_flags:-}" -DCMAKE_CXX_FLAGS="$flags ${cxx_flags:-}" \
    -DCMAKE_C_FLAGS_RELEASE="-O2 -DNDEBUG" -DCMAKE_CXX_FLAGS_RELEASE="-O2 -DNDEBUG" \
    "${toolchain_args[@]}" "$@"
}

recipe_xnnpack() {  # its own copy of pthreadpool is for its headers; the archive is the next recipe's
  local src=$1 build=$2 prefix=$3
  configure "$src/xnnpack" "$build" \
    -DXNNPACK_LIBRARY_TYPE=static -DXNNPACK_BUILD_TESTS=OFF -DXNNPACK_BUILD_BENCHMARKS=OFF \
    -DXNNPACK_BUILD_ALL_MICROKERNELS=OFF -DXNNPACK_ENABLE_KLEIDIAI=OFF \
    -DCPUINFO_SOURCE_DIR="$src/cpuinfo" -DPTHREADPOOL_SOURCE_DIR="$src/pthreadpool" \
    -DFXDIV_SOURCE_DIR="$src/fxdiv" -DCPUINFO_BUILD_TOOLS=OFF \
    -DPTHREADPOOL_LIBRARY_TYPE=static -DCPUINFO_LIBRARY_TYPE=static
  cmake --build "$build" --parallel "$jobs" --target XNNPACK microkernels-prod cpuinfo
  copy_files "$prefix/lib" "$build"/{libXNNPACK.a,libmicrokernels-prod.a,cpuinfo/libcpuinfo.a}
  copy_files "$prefix/include" "$src"/xnnpack/include/xnnpack.h "$src"/cpuinfo/include/cpuinfo.h
}

recipe_pthreadpool() {
  local src=$1 build=$2 prefix=$3
  c_flags=$sanitizer_flags configure "$src/pthreadpool" "$build" -DPTHREADPOOL_LIBRARY_TYPE=static \
    -DPTHREADPOOL_BUILD_TESTS=OFF -DPTHREADPOOL_BUILD_BENCHMARKS=OFF -DFXDIV_SOURCE_DIR="$src/fxdiv"
  cmake --build "$build" --parallel "$jobs" --target pthreadpool
  copy_files "$prefix/lib" "$build/libpthreadpool.a"
  copy_files "$prefix/include" "$src/pthreadpool/include/pthreadpool.h"
}

recipe_flatbuffers() {  # headers, and flatc: a build tool that runs for milliseconds, so not optimised
  local src=$1 build=$2 prefix=$3
  configure "$src/flatbuffers" "$build" -DFLATBUFFERS_BUILD_TESTS=OFF -DFLATBUFFERS_INSTALL=OFF \
    -DFLATBUFFERS_BUILD_FLATLIB=OFF -DCMAKE_CXX_FLAGS_RELEASE="-O0 -DNDEBUG"
  cmake --build "$build" --parallel "$jobs" --target flatc
  copy_files "$prefix/bin" "$build/flatc"
  copy_files "$prefix/include" "$src/flatbuffers/include/flatbuffers"
}

recipe_sentencepiece() {
  local src=$1 build=$2 prefix=$3
  # 0.1.97 relies on headers that include <cstdint> by accident; newer compilers do not.
  cxx_flags="-include cstdint" configure "$src/sentencepiece" "$build" -DSPM_ENABLE_SHARED=OFF \
    -DSPM_USE_BUILTIN_PROTOBUF=ON -DSPM_ENABLE_TCMALLOC=OFF -DCMAKE_POLICY_VERSION_MINIMUM=3.5
  cmake --build "$build" --parallel "$jobs" --target sentencepiece-static sentencepiece_train-static
  copy_files "$prefix/lib" "$build"/src/libsentencepiece.a "$build"/src/libsentencepiece_train.a
  copy_files "$prefix/include" "$src"/sentencepiece/src/sentencepiece_{processor,trainer}.h
  # The model file's own message type, with the protobuf-lite it was generated for: a folder of its own, so that
  # nobody who includes the processor sees a second protobuf.
  copy_files "$prefix/include/sentencepiece-proto" "$src"/sentencepiece/src/builtin_pb/sentencepiece_model.pb.h \
    "$src"/sentencepiece/third_party/protobuf-lite/google
}

copy_files() {  # copy_files FOLDER FILE...
  mkdir -p "$1"
  cp -R "${@:2}" "$1"
}

# ---- Pins and keys ----

pin() {  # pin NAME: sets version, archive, sha256, git_url, git_commit
  read -r _ version archive sha256 git_url git_commit < <(grep "^$1 " "$pins") ||
    die "no line for $1 in $pins"
}

compiler_id() {  # the first word is the name it was called by: cc or gcc, the same compiler
  command -v "$1" >/dev/null || die "no compiler $1 (scripts/setup.sh installs one)"
  "$1" --version | sed -n '1s/^[^ ]* //p'
  "$1" -dumpmachine
}

# Everything that decides what comes out of a group's recipe.
key_text() {  # key_text GROUP
  local name
  for name in ${sources[$1]}; do
    pin "$name"
    echo "$name $version $sha256"
  done
  declare -f configure copy_files "recipe_$1"
  # Of the toolchain file the content counts, not in which checkout it lies.
  printf '%s\n' "$sanitizer_flags" "${toolchain_args[@]##-DCMAKE_TOOLCHAIN_FILE=*}"
  if [[ $toolchain ]]; then
    cat "$toolchain"
  else
    compiler_id "${CC:-cc}"
    compiler_id "${CXX:-c++}"
  fi
}

# ---- Archives ----

has_hash() { [[ -f $1 && $(sha256sum <"$1") == "$2 "* ]]; }

# Every mirror that this machine's own apt uses.
mirrors() {
  if command -v apt-get >/dev/null; then
    apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sort -u
  fi
}

from_debian() {  # from_debian PATH SHA256 FILE
  local helper=/usr/lib/apt/apt-helper mirror
  [[ -x $helper ]] || return 1
  for mirror in $(mirrors); do
    rm -f "$3"
    if "$helper" download-file "${mirror%/}/$1" "$3" >/dev/null 2>&1 && has_hash "$3" "$2"; then
      return 0
    fi
  done
  return 1
}

from_git() {  # from_git URL COMMIT FOLDER: the commit id is the check
  command -v git >/dev/null || return 1
  rm -rf "$3"
  mkdir -p "$3"
  {
    git -C "$3" init -q && git -C "$3" fetch -q --depth 1 "$1" "$2" &&
      [[ $(git -C "$3" rev-parse FETCH_HEAD) == "$2" ]] && git -C "$3" checkout -q FETCH_HEAD
  } >/dev/null 2>&1 && rm -rf "$3/.git"
}

unpack() {  # unpack NAME FOLDER: the sources of NAME, checked, without the archive's own top folder
  local name=$1 folder=$2 file part entries
  pin "$name"
  file=$cache/archives/${archive##*/}
  if ! has_hash "$file" "$sha256"; then
    if [[ -f $file ]]; then say "$file does not match its pinned hash; getting it again"; fi
    part=$file.part.$$
    mkdir -p "$cache/archives"
    if from_debian "$archive" "$sha256" "$part"; then
      mv -f "$part" "$file"
    else
      rm -f "$part"
      say "$name: not on this machine's Debian mirrors; trying $git_url"
      from_git "$git_url" "$git_commit" "$folder" ||
        die "$name $version: neither $archive nor $git_url at $git_commit could be had"
      return
    fi
  fi
  mkdir -p "$folder"
  tar -xf "$file" -C "$folder"
  entries=("$folder"/*)
  if [[ ${#entries[@]} == 1 && -d ${entries[0]} ]]; then
    mv "${entries[0]}" "$folder.top"
    rmdir "$folder"
    mv "$folder.top" "$folder"
  fi
}

# ---- Building ----

build_group() {  # build_group GROUP PREFIX
  local group=$1 prefix=$2 name part status start=$SECONDS
  local work=$cache/work/${prefix##*/}
  mkdir -p "$cache/work"
  exec {lock}>"$work.lock"
  if ! flock -n "$lock"; then
    say "waiting for another run that is building $group"
    flock "$lock"
  fi
  if [[ ! -d $prefix ]]; then  # another run may have built it while this one waited
    say "building $group (once; kept in $cache)"
    rm -rf "$work"
    mkdir -p "$work/src" "$work/out/licenses"
    for name in ${sources[$group]}; do
      unpack "$name" "$work/src/$name"
      cp "$work/src/$name/LICENSE" "$work/out/licenses/$name"
      for part in "$work/src/$name"/third_party/*/LICENSE; do  # what it carries inside itself
        if [[ -f $part ]]; then cp "$part" "$work/out/licenses/$name-$(basename "${part%/LICENSE}")"; fi
      done
    done
    set +e  # `recipe || ...` would switch errexit off within the recipe
    (set -e; "recipe_$group" "$work/src" "$work/build" "$work/out") >"$work.log" 2>&1
    status=$?
    set -e
    if ((status)); then
      tail -n 40 "$work.log" >&2
      die "$group did not build; the whole log is $work.log"
    fi
    mv "$work/out" "$prefix"
    rm -rf "$work" "$work.log"
    say "$group is ready ($((SECONDS - start)) s)"
  fi
  exec {lock}>&-
}

provide() {  # provide GROUP: builds it if need be, prints its prefix
  local key prefix
  key=$(key_text "$1" | sha256sum)
  prefix=$cache/$1-${key:0:16}
  [[ -d $prefix ]] || build_group "$1" "$prefix"
  echo "$prefix"
}

main() {
  local only=("${groups[@]}") group prefix print='' tsan=''
  jobs=${NESTLING_JOBS:-$(nproc)}
  while (($#)); do
    case $1 in
      --only) IFS=, read -ra only <<<"$2"; shift ;;
      --print) print=1 ;;
      --tsan) tsan=1 ;;
      --toolchain)
        toolchain=$2
        toolchain_args+=(-DCMAKE_TOOLCHAIN_FILE="$2")
        shift ;;
      -D*) toolchain_args+=("$1") ;;
      *) die "unknown argument $1; see the head of third_party/build.sh" ;;
    esac
    shift
  done
  for group in "${only[@]}"; do
    [[ ${sources[$group]-} ]] || die "unknown group $group; there are: ${groups[*]}"
    prefix=$(
      if [[ $group == pthreadpool && $tsan ]]; then sanitizer_flags="-fsanitize=thread -g"; fi
      if [[ $group == flatbuffers ]]; then toolchain='' toolchain_args=(); fi  # flatc runs on this machine
      provide "$group"
    )
    if [[ $print ]]; then echo "$group=$prefix"; fi
  done
}

# One command line, so that bash has read all of it before it runs: the file may be edited meanwhile.
main "$@"; exit
