# What `cmake --install build/release --prefix P` puts there: the binaries, and the client library for
# find_package(tidepool) and the target tidepool::client, with its headers and the protos. A test builds a program with it
# (tests/install).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS tidepool tidepool-cache tidepool-http tidepool-worker RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

# The client library and what it is linked from.
set(TIDEPOOL_INSTALLED client base proto rpc_security security)
foreach(name ${TIDEPOOL_INSTALLED})
  set_target_properties(tidepool_${name} PROPERTIES EXPORT_NAME ${name})
endforeach()
target_compile_features(tidepool_client PUBLIC cxx_std_20)
list(TRANSFORM TIDEPOOL_INSTALLED PREPEND tidepool_)
install(TARGETS ${TIDEPOOL_INSTALLED} xxhash EXPORT tidepool ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})

# What its users include, and what that includes.
foreach(header client/admin_client.h client/generation_call.h client/generation_client.h client/routed_client.h security/rpc/channel_security.h)
  cmake_path(GET header PARENT_PATH folder)
  install(FILES ${header} DESTINATION include/tidepool/${folder})
endforeach()
install(FILES ${PROJECT_BINARY_DIR}/proto/tidepool/v1/cache_admin.pb.h ${PROJECT_BINARY_DIR}/proto/tidepool/v1/generation.pb.h
        DESTINATION include/tidepool/tidepool/v1)
install(DIRECTORY proto/tidepool DESTINATION share/tidepool/proto FILES_MATCHING PATTERN *.proto)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/tidepool)
install(EXPORT tidepool NAMESPACE tidepool:: FILE tidepoolTargets.cmake DESTINATION ${package})
configure_package_config_file(scripts/cmake/tidepoolConfig.cmake.in ${PROJECT_BINARY_DIR}/tidepoolConfig.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tidepoolConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tidepoolConfig.cmake ${PROJECT_BINARY_DIR}/tidepoolConfigVersion.cmake
        DESTINATION ${package})
