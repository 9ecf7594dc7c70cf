# Sourced by .ci/run: Debian's packages that tests need, each installed only where its program is missing.
# shellcheck shell=bash

mirror=unasked # then "answers", or why it cannot be asked
absent=()      # packages that are missing for that reason

# needs WORD PACKAGE:PROGRAM[,PROGRAM]...: appends WORD to $required where every package has one of its programs.
# Where the mirror answers and a package cannot be installed all the same, the shell ends.
needs() {
  local word=$1 entry complete=yes
  shift
  for entry in "$@"; do
    has_any "${entry#*:}" || install "${entry%%:*}" "${entry#*:}" || complete=no
  done
  [ "$complete" = no ] || required+=,$word
}

install() {
  [ "$mirror" != unasked ] || ask_mirror
  if [ "$mirror" != answers ]; then
    absent+=("$1")
    return 1
  fi
  if ! three_times install_and_check "$@"; then
    echo "the mirror of apt answers, but the package $1 cannot be installed" >&2
    exit 1
  fi
}

# A package may install and lack the program, as those that only point to a snap do.
install_and_check() {
  apt_get install --yes --no-install-recommends "$1" > /dev/null && has_any "$2" && return
  apt_get update > /dev/null || true # the next try may need newer lists
  return 1
}

ask_mirror() {
  if ! command -v apt-get > /dev/null; then
    mirror="there is no apt-get"
  elif [ "$(id -u)" != 0 ]; then
    mirror="apt-get needs root"
  elif three_times lists_arrive; then
    mirror=answers
  else
    mirror="no mirror of apt answers"
  fi
}

# `apt-get update` succeeds without any answer as well: what it prints tells them apart.
lists_arrive() {
  local printed
  printed=$(apt_get update) || true
  grep -qE '^(Hit|Get):' <<< "$printed"
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=120 "$@"
}

has_any() {
  local program
  for program in ${1//,/ }; do
    if command -v "$program" > /dev/null; then return; fi
  done
  return 1
}

three_times() {
  "$@" || { sleep 5 && "$@"; } || { sleep 20 && "$@"; }
}
