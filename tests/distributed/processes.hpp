// Runs a test's case in several processes at once: copies of the test's own program, which meet on the loopback.
// SPDX-License-Identifier: MIT
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <steppe/distributed/world.hpp>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

extern char** environ;

namespace processes {

/// The bodies of the children, by name.
inline std::map<std::string, std::function<void()>>& cases() {
  static std::map<std::string, std::function<void()>> all;
  return all;
}

/// Registers one, before main(): `const processes::Case kSums("sums", [](const World& world) { ... });`
struct Case {
  Case(const char* name, void (*body)()) { add(name, body); }
  Case(const char* name, void (*body)(const steppe::distributed::World&)) {
    add(name, [body] { body(steppe::distributed::world(std::chrono::seconds(20))); });
  }

 private:
  static void add(const char* name, std::function<void()> body) {
    if (cases().emplace(name, std::move(body)).second) return;
    std::fprintf(stderr, "two cases are called %s\n", name);
    std::abort();
  }
};

/// Where a child may leave files for the test; its own process' text otherwise.
inline std::string folder() {
  const char* const name = std::getenv("STEPPE_TEST_FOLDER");
  return name != nullptr ? name : "";
}

/// Replaces the tests in a child. EXPECT_... works in a case; an exception is a failure as well.
class Child : public testing::Environment {
 public:
  void SetUp() override {
    const char* const name = std::getenv("STEPPE_TEST_CASE");
    if (name == nullptr) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // it does not outlive the test
    try {
      cases().at(name)();
    } catch (const std::exception& error) {
      ADD_FAILURE() << name << " threw: " << error.what();
    }
    std::fflush(nullptr);
    _exit(testing::UnitTest::GetInstance()->ad_hoc_test_result().Failed() ? 1 : 0);
  }
};
inline testing::Environment* const kChild = testing::AddGlobalTestEnvironment(new Child);

inline int loopback_socket(uint16_t& port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (socket < 0 || bind(socket, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0)
    throw std::runtime_error("no port on the loopback");
  port = ntohs(address.sin_port);
  return socket;
}

/// A port that is free at this moment.
inline uint16_t free_port() {
  uint16_t port = 0;
  close(loopback_socket(port));
  return port;
}

using Variables = std::map<std::string, std::string>;

/// How a process ended.
struct Ended {
  int code = -1;  ///< of its exit
  int signal = 0;
  bool late = false;  ///< it was killed at the time limit
  std::string output;
};

/// The results of the children; the destructor removes their folder.
struct Run {
  std::vector<Ended> children;
  std::string folder;

  explicit Run(std::string in) : folder(std::move(in)) {}
  Run(Run&& other) noexcept : children(std::move(other.children)), folder(std::exchange(other.folder, "")) {}
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  Run& operator=(Run&& other) noexcept {
    std::swap(children, other.children);
    std::swap(folder, other.folder);
    return *this;
  }
  ~Run() {
    std::error_code ignored;
    if (!folder.empty()) std::filesystem::remove_all(folder, ignored);
  }

  bool passed() const {
    for (const Ended& child : children)
      if (child.code != 0) return false;
    return true;
  }
  /// What all have written, for a failure's message.
  std::string text() const {
    std::string all;
    for (size_t r = 0; r < children.size(); ++r)
      all += "-- process " + std::to_string(r) + ": code " + std::to_string(children[r].code) + ", signal " +
             std::to_string(children[r].signal) + (children[r].late ? ", too late" : "") + "\n" + children[r].output;
    return all;
  }
};

/// Runs the case in `count` processes with the variables of torchrun, and waits for them, `limit` at most. `own`, where
/// given, changes the variables of process r; an empty value removes one.
inline Run run(const std::string& name, int count, std::chrono::seconds limit = std::chrono::seconds(60),
               const std::function<void(int, Variables&)>& own = nullptr) {
  std::string pattern = testing::TempDir() + "steppe-processes-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no folder for the processes' output");
  Run result(pattern);
  const std::string port = std::to_string(free_port());

  std::vector<pid_t> running;
  for (int r = 0; r < count; ++r) {
    Variables variables;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string text = *entry;
      if (text.rfind("GTEST_", 0) != 0) variables[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
    }
    variables["RANK"] = variables["LOCAL_RANK"] = std::to_string(r);
    variables["WORLD_SIZE"] = std::to_string(count);
    variables["MASTER_ADDR"] = "127.0.0.1";
    variables["MASTER_PORT"] = port;
    variables["OMP_NUM_THREADS"] = "1";
    variables["STEPPE_TEST_CASE"] = name;
    variables["STEPPE_TEST_FOLDER"] = result.folder;
    if (own) own(r, variables);
    std::vector<std::string> texts;
    for (const auto& [key, value] : variables)
      if (!value.empty()) texts.push_back(key + "=" + value);
    std::vector<char*> environment;
    for (std::string& text : texts) environment.push_back(text.data());
    environment.push_back(nullptr);

    std::string program = "/proc/self/exe", filter = "--gtest_filter=*", brief = "--gtest_brief=1";
    char* arguments[] = {program.data(), filter.data(), brief.data(), nullptr};
    const std::string output = result.folder + "/" + std::to_string(r) + ".out";
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    pid_t process = 0;
    const int failed = posix_spawn(&process, program.c_str(), &files, nullptr, arguments, environment.data());
    posix_spawn_file_actions_destroy(&files);
    if (failed != 0) throw std::runtime_error(std::string("posix_spawn: ") + std::strerror(failed));
    running.push_back(process);
  }

  result.children.resize(static_cast<size_t>(count));
  const auto start = std::chrono::steady_clock::now();
  for (size_t left = running.size(); left > 0;) {
    const bool is_over = std::chrono::steady_clock::now() - start > limit;
    for (size_t r = 0; r < running.size(); ++r) {
      if (running[r] == 0) continue;
      if (is_over) {
        kill(running[r], SIGKILL);
        result.children[r].late = true;
      }
      int status = 0;
      if (waitpid(running[r], &status, is_over ? 0 : WNOHANG) != running[r]) continue;
      if (WIFEXITED(status)) result.children[r].code = WEXITSTATUS(status);
      if (WIFSIGNALED(status)) result.children[r].signal = WTERMSIG(status);
      running[r] = 0;
      --left;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  for (int r = 0; r < count; ++r) {
    std::ifstream file(result.folder + "/" + std::to_string(r) + ".out");
    std::ostringstream text;
    text << file.rdbuf();
    result.children[static_cast<size_t>(r)].output = text.str();
  }
  return result;
}

}  // namespace processes
