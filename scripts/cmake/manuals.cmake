# Manual pages and shell completions, written by the programs themselves: share/ of the build folder, and of an installation.
set(share ${PROJECT_BINARY_DIR}/share)
set(manuals)

# Output of PROGRAM ARGUMENTS as share/FILE.
function(tidepool_manual file program)
  get_filename_component(folder ${share}/${file} DIRECTORY)
  add_custom_command(OUTPUT ${share}/${file}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
    COMMAND ${program} ${ARGN} > ${share}/${file}
    DEPENDS ${program} VERBATIM)
  set(manuals ${manuals} ${share}/${file} PARENT_SCOPE)
endfunction()

tidepool_manual(man/man1/tidepool.1 tidepool man)
foreach(command generate chat serve inspect admin health model policies bench size doctor completion man)
  tidepool_manual(man/man1/tidepool-${command}.1 tidepool man ${command})
endforeach()
foreach(server tidepool-cache tidepool-worker tidepool-http)
  tidepool_manual(man/man1/${server}.1 ${server} --man)
endforeach()
tidepool_manual(bash-completion/completions/tidepool tidepool completion bash)
tidepool_manual(zsh/site-functions/_tidepool tidepool completion zsh)
tidepool_manual(fish/vendor_completions.d/tidepool.fish tidepool completion fish)
add_custom_target(manuals ALL DEPENDS ${manuals})
install(DIRECTORY ${share}/ DESTINATION share)
