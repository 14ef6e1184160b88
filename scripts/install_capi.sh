#!/usr/bin/env bash
# Builds libvitlet and installs it for C and C++: libraries, headers, vitlet.pc, and a configuration for CMake's
# find_package(vitlet).
#
#     ./scripts/install_capi.sh PREFIX [TARGET]
#
# `cargo cinstall --profile library -p vitlet-capi --prefix PREFIX` (cargo-c) does all but the last. TARGET is a triple
# of rustc; CARGO_TARGET_..._LINKER names a linker for it. The tree can be moved, because vitlet.pc and CMake find it
# relative to themselves. FEATURES in the environment has options of cargo for the features of the library.
set -euo pipefail
[ "$#" -ge 1 ] && [ "$#" -le 2 ] || { echo "usage: install_capi.sh PREFIX [TARGET]" >&2; exit 2; }
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
target=${2:-$host}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The interface's version; its first number is in the name that programs look for (SONAME: capi/build.rs).
file_version=$(sed -n '/^\[package.metadata.capi.library\]/,$s/^version = "\(.*\)"/\1/p' capi/Cargo.toml)
interface=${file_version%%.*}
built=${CARGO_TARGET_DIR:-target}/$target/library
mkdir -p "$built"
native=$PWD/$built/vitlet-native-libs
case "$built" in /*) native=$built/vitlet-native-libs ;; esac

flags=(--print "native-static-libs=$native")
# Programs with musl in them are static.
kinds=()
case "$target" in *-musl) kinds=(--crate-type staticlib) ;; esac
read -ra features <<<"${FEATURES:-}"
cargo rustc --quiet --profile library -p vitlet-capi --lib "${features[@]}" "${kinds[@]}" --target "$target" -- "${flags[@]}"

mkdir -p "$prefix/include" "$prefix/lib/pkgconfig" "$prefix/lib/cmake/vitlet"
cp capi/include/vitlet.h capi/include/vitlet.hpp "$prefix/include/"
cp "$built/libvitlet.a" "$prefix/lib/"
if [ -e "$built/libvitlet.so" ]; then
    cp "$built/libvitlet.so" "$prefix/lib/libvitlet.so.$file_version"
    ln -sf "libvitlet.so.$file_version" "$prefix/lib/libvitlet.so.$interface"
    ln -sf "libvitlet.so.$interface" "$prefix/lib/libvitlet.so"
fi

# What a program that links libvitlet.a needs besides. The compiler adds its own runtime (gcc_s, or gcc_eh with -static)
# and libc.
private=$(tr ' ' '\n' <"$native" | awk '!/^-l(gcc_s|gcc|c|unwind)$/ && !seen[$0]++' | tr '\n' ' ')
private=$(sed 's/ *$//' <<<"$private")
cat >"$prefix/lib/pkgconfig/vitlet.pc" <<END
prefix=\${pcfiledir}/../..
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: vitlet
Description: int8 and f16 Vision Transformers for ARM CPUs
Version: $version
Libs: -L\${libdir} -lvitlet
Libs.private: $private
Cflags: -I\${includedir}
END
cat >"$prefix/lib/cmake/vitlet/vitlet-config.cmake" <<END
# find_package(vitlet) defines vitlet::vitlet, the shared library where there is one, and vitlet::static.
get_filename_component(_vitlet_prefix "\${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET vitlet::static)
    add_library(vitlet::static STATIC IMPORTED)
    set_target_properties(vitlet::static PROPERTIES
        IMPORTED_LOCATION "\${_vitlet_prefix}/lib/libvitlet.a"
        INTERFACE_INCLUDE_DIRECTORIES "\${_vitlet_prefix}/include"
        INTERFACE_LINK_LIBRARIES "${private// /;}")
    if(EXISTS "\${_vitlet_prefix}/lib/libvitlet.so")
        add_library(vitlet::vitlet SHARED IMPORTED)
        set_target_properties(vitlet::vitlet PROPERTIES
            IMPORTED_LOCATION "\${_vitlet_prefix}/lib/libvitlet.so"
            IMPORTED_SONAME "libvitlet.so.$interface"
            INTERFACE_INCLUDE_DIRECTORIES "\${_vitlet_prefix}/include")
    else()
        add_library(vitlet::vitlet INTERFACE IMPORTED)
        set_target_properties(vitlet::vitlet PROPERTIES INTERFACE_LINK_LIBRARIES vitlet::static)
    endif()
endif()
unset(_vitlet_prefix)
END
cat >"$prefix/lib/cmake/vitlet/vitlet-config-version.cmake" <<END
set(PACKAGE_VERSION "$version")
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
END
echo "vitlet $version for $target: $prefix"
