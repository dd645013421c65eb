#include "tests/support/process.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "tests/support/temp_dir.h"

namespace tidepool::test {
namespace {

std::vector<std::string> Shell(const std::string& script) { return {"sh", "-c", script}; }

TEST(ChildProcessTest, CollectsOutputAndExitCode) {
  const ProgramResult result = RunProgram(Shell("echo to out; echo to err >&2; exit 3"));
  EXPECT_EQ(result.exit, ExitStatus::Exited(3));
  EXPECT_EQ(result.out, "to out\n");
  EXPECT_EQ(result.err, "to err\n");
}

TEST(ChildProcessTest, PassesStdinAndEnvironment) {
  const ProgramResult result = RunProgram(Shell("cat; echo $TIDE"), "in\n", {{"TIDE", "high"}});
  EXPECT_EQ(result.out, "in\nhigh\n");
}

TEST(ChildProcessTest, WaitsForALine) {
  ChildProcess child(Shell("echo starting; echo ready on 7; read line; echo got $line"));
  EXPECT_EQ(child.WaitForLine("ready"), "ready on 7");
  EXPECT_TRUE(child.Running());
  child.WriteStdin("water\n");
  EXPECT_EQ(child.WaitForLine("got"), "got water");
  EXPECT_EQ(child.Wait(), ExitStatus::Exited(0));
}

TEST(ChildProcessTest, AChildThatEndsWithoutTheLineFailsAtOnceWithItsStderr) {
  ChildProcess child(Shell("echo broken disk >&2; exit 1"));
  try {
    child.WaitForLine("ready");
    FAIL() << "expected an exception";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("broken disk"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("exited with 1"), std::string::npos) << error.what();
  }
}

TEST(ChildProcessTest, AWaitIsBounded) {
  ChildProcess child(Shell("read never"));
  EXPECT_THROW(child.WaitForLine("ready", std::chrono::milliseconds(1)), std::runtime_error);
  EXPECT_THROW(child.Wait(std::chrono::milliseconds(1)), std::runtime_error);
}

TEST(ChildProcessTest, ReadsThePortFileOnceItIsWhole) {
  const TempDir dir;
  ChildProcess child(
      Shell("printf 41 >" + dir.File("port") + "; read go; echo 52 >>" + dir.File("port") + "; read end"));
  EXPECT_THROW(child.WaitForPortFile(dir.File("port"), std::chrono::milliseconds(1)), std::runtime_error);
  child.WriteStdin("go\n");
  EXPECT_EQ(child.WaitForPortFile(dir.File("port")), 4152);
}

TEST(ChildProcessTest, KillAndTerminateReportTheSignal) {
  ChildProcess killed(Shell("echo up; read never")), terminated(Shell("echo up; read never"));
  killed.WaitForLine("up");
  terminated.WaitForLine("up");
  EXPECT_EQ(killed.Kill(), ExitStatus::Signaled(SIGKILL));
  EXPECT_EQ(terminated.Terminate(), ExitStatus::Signaled(SIGTERM));
}

TEST(ChildProcessTest, TheDestructorEndsTheChildAndItsChildren) {
  pid_t child_pid = 0;
  {
    ChildProcess child(Shell("sleep 1000 & echo pid $!; wait"));
    child_pid = child.pid();
    const pid_t grandchild_pid = std::stoi(child.WaitForLine("pid").substr(4));
    ASSERT_EQ(kill(grandchild_pid, 0), 0);
  }
  EXPECT_NE(kill(child_pid, 0), 0);
  // That the destructor returned says the grandchild has gone too: its end of the pipes would have kept the readers
  // reading.
}

TEST(ChildProcessTest, AProgramThatDoesNotExistExitsWith127) {
  EXPECT_EQ(RunProgram({"/nonexistent/program"}).exit, ExitStatus::Exited(127));
}

TEST(TempDirTest, IsRemovedWithItsContents) {
  std::string path;
  {
    const TempDir dir;
    path = dir.path();
    std::ofstream(dir.File("a")) << "x";
    EXPECT_TRUE(std::filesystem::exists(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace tidepool::test
