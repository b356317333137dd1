// The processes of a training run, as given by its launcher, and the store through which they find each other.
// SPDX-License-Identifier: MIT
#pragma once

#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
/// Several processes, by c10d.
namespace distributed {

/// The processes of a run. One process without a launcher is a world as well.
struct World {
  int rank = 0;                           ///< which of them this is
  int size = 1;                           ///< their number
  int local_rank = 0;                     ///< which of those on this machine this is; 0 if the launcher does not set it
  c10::intrusive_ptr<c10d::Store> store;  ///< in which the processes find each other
  std::chrono::milliseconds timeout = std::chrono::minutes(5);  ///< how long the others are waited for
  int store_process = -1;  ///< the process that serves the store, which ends with it; -1: none of them
};

/// Reading and writing texts in a store.
///@{
inline void put(c10d::Store& store, const std::string& key, const std::string& text) {
  store.set(key, std::vector<uint8_t>(text.begin(), text.end()));
}
inline std::string text_of(c10d::Store& store, const std::string& key) {
  const std::vector<uint8_t> bytes = store.get(key);
  return std::string(bytes.begin(), bytes.end());
}
inline bool has(c10d::Store& store, const std::string& key) { return store.check({key}); }
///@}

/// The message of an exception without the trace that LibTorch adds, in one line.
inline std::string first_line(const std::exception& error) {
  const auto* const of_libtorch = dynamic_cast<const c10::Error*>(&error);
  std::string text = of_libtorch != nullptr ? of_libtorch->what_without_backtrace() : error.what();
  text = text.substr(0, text.find('\n'));
  constexpr size_t kLongest = 500;
  return text.size() > kLongest ? text.substr(0, kLongest) + " ..." : text;
}

/// "1", "1 and 4", "1, 4 and 5"
inline std::string list_of(const std::vector<int>& numbers) {
  std::string list;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0) list += i + 1 == numbers.size() ? " and " : ", ";
    list += std::to_string(numbers[i]);
  }
  return list;
}

/// "5 s", "250 ms".
inline std::string in_words(std::chrono::milliseconds time) {
  const auto count = time.count();
  return count % 1000 == 0 ? std::to_string(count / 1000) + " s" : std::to_string(count) + " ms";
}

/// An environment variable, null where it is not set or empty.
inline const char* variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

/// The number that an environment variable holds. Throws c10::Error if it is not a whole number in the range; `cure`
/// ends the message.
inline int whole_number(const char* name, const char* value, int least, int greatest, const char* cure) {
  char* end = nullptr;
  errno = 0;
  const long number = std::strtol(value, &end, 10);
  TORCH_CHECK(end != value && *end == '\0' && errno == 0 && number >= least && number <= greatest, "steppe: ", name,
              " is '", value, "'; it must be a whole number from ", least, " to ", greatest, ". ", cure);
  return static_cast<int>(number);
}

/// The environment variables in which a launcher gives a process its rank.
struct Launcher {
  const char* rank;        ///< of the process, from 0
  const char* size;        ///< the number of processes
  const char* local_rank;  ///< of the process among those of its machine
};

/// The first whose variable is set, null if there is none. Slurm comes last: under an mpirun within a Slurm job its
/// variables are those of the daemon that mpirun has started there, the same for all processes of a machine.
inline const Launcher* launcher() {
  static constexpr Launcher known[] = {{"RANK", "WORLD_SIZE", "LOCAL_RANK"},  // torchrun, or set by hand
                                       {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
                                       {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},  // MPICH, Intel MPI
                                       {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"}};
  const char* const world_size = variable("WORLD_SIZE");
  TORCH_CHECK(world_size == nullptr || variable("RANK") != nullptr, "steppe: WORLD_SIZE is ", world_size,
              ", but RANK is not set; set both, or start the program with a launcher that does, such as torchrun");
  for (const Launcher& one : known)
    if (variable(one.rank) != nullptr) return &one;
  return nullptr;
}

/// Where the processes meet.
struct Meeting {
  std::string host;       ///< of the machine that serves the store
  uint16_t port = 0;      ///< at which it is served
  bool by_agent = false;  ///< torchrun's agent serves the store: every process is a client

  /// "host:port".
  std::string address() const { return host + ":" + std::to_string(port); }
};

/// Reads MASTER_ADDR and MASTER_PORT. Throws c10::Error if one is not set, or the port is none.
inline Meeting meeting(int size) {
  Meeting found;
  const char* const host = variable("MASTER_ADDR");
  TORCH_CHECK(host != nullptr, "steppe: there are ", size,
              " processes, but MASTER_ADDR is not set; set it on all of them to the host name or address of the "
              "machine of process 0 (127.0.0.1 where all run on one)");
  const char* const port = variable("MASTER_PORT");
  TORCH_CHECK(port != nullptr, "steppe: there are ", size,
              " processes, but MASTER_PORT is not set; set it on all of them to one free port of ", host,
              ", such as 29500");
  found.host = host;
  found.port = static_cast<uint16_t>(whole_number("MASTER_PORT", port, 1, (std::numeric_limits<uint16_t>::max)(),
                                                  "It is a port of the machine of process 0, such as 29500"));
  const char* const agent = variable("TORCHELASTIC_USE_AGENT_STORE");
  found.by_agent = agent != nullptr && std::string(agent) == "True";
  return found;
}

/// Serves the store in process 0, reaches it from the others.
inline c10::intrusive_ptr<c10d::Store> connect(const World& world, const Meeting& at) {
  c10d::TCPStoreOptions options;
  options.port = at.port;
  options.isServer = world.rank == 0 && !at.by_agent;
  options.numWorkers = static_cast<size_t>(world.size);
  options.waitWorkers = false;  // meet() waits, and can name who is missing
  options.timeout = world.timeout;
  options.multiTenant = true;  // a second world() in this process finds the server of the first
  try {
    return c10::make_intrusive<c10d::TCPStore>(at.host, options);
  } catch (const std::exception& error) {
    const std::string line = first_line(error);
    const bool is_taken =
        options.isServer && (std::string(error.what()).find("EADDRINUSE") != std::string::npos ||
                             std::string(error.what()).find("ddress already in use") != std::string::npos);
    TORCH_CHECK(!is_taken, "steppe: port ", at.port, " (MASTER_PORT) of ", at.host,
                " is taken, by another run or by a second process with rank 0; set MASTER_PORT to a free port on all "
                "processes");
    TORCH_CHECK(!options.isServer, "steppe: process 0 could not serve the store of the processes at ", at.address(),
                " (MASTER_ADDR, MASTER_PORT), which must be an address of its own machine: ", line);
    TORCH_CHECK(false, "steppe: process ", world.rank, " did not reach the store of the processes at ", at.address(),
                " (MASTER_ADDR, MASTER_PORT) within ", in_words(world.timeout), ". Start ",
                at.by_agent ? "torchrun's agent" : "process 0",
                " there; the address must be right and no "
                "firewall between: ",
                line);
  }
}

/// Returns when all processes have joined. Errors: one is missing, two have the same rank, or they differ in their
/// number.
inline void meet(const World& world, c10d::Store& store, const Meeting& at) {
  const std::string rank = std::to_string(world.rank), size = std::to_string(world.size);
  const auto stop = [&](const std::string& why) {
    // The others should read it before the store ends with this process.
    if (world.rank == world.store_process) std::this_thread::sleep_for(std::chrono::seconds(1));
    TORCH_CHECK(false, why);
  };
  const auto refuse = [&](const std::string& why) {
    put(store, "refused", why);
    stop(why);
  };
  const auto start = std::chrono::steady_clock::now();
  try {
    const std::vector<uint8_t> first =
        store.compareSet("size", std::vector<uint8_t>(), std::vector<uint8_t>(size.begin(), size.end()));
    const std::string others(first.begin(), first.end());
    if (others != size)
      refuse("steppe: process " + rank + " was given the world size " + size + ", another one at " + at.address() +
             " the size " + others + "; set the same WORLD_SIZE on all of them");
    if (store.add("rank/" + rank, 1) != 1)
      refuse("steppe: two processes have rank " + rank + " of " + size + " at " + at.address() +
             "; every process needs a rank of its own, and every run a MASTER_PORT of its own");

    const auto has_come = [&](int other) { return has(store, "rank/" + std::to_string(other)); };
    auto pause = std::chrono::milliseconds(5);
    for (int next = 0; next < world.size;) {
      if (has_come(next)) {
        ++next;
        continue;
      }
      if (has(store, "refused")) stop(text_of(store, "refused"));
      if (std::chrono::steady_clock::now() - start > world.timeout) {
        std::vector<int> missing;
        for (int other = 0; other < world.size; ++other)
          if (!has_come(other)) missing.push_back(other);
        if (missing.empty()) return;
        refuse("steppe: after " + in_words(world.timeout) + " " +
               std::to_string(world.size - static_cast<int>(missing.size())) + " of " + size +
               " processes have joined at " + at.address() + "; missing: " + list_of(missing) +
               ". Start them, or set WORLD_SIZE to the number that there is");
      }
      std::this_thread::sleep_for(pause);
      pause = (std::min)(2 * pause, std::chrono::milliseconds(200));
    }
    if (has(store, "refused")) stop(text_of(store, "refused"));
  } catch (const std::exception& error) {
    const std::string line = first_line(error);
    if (line.rfind("steppe: ", 0) == 0) throw;
    TORCH_CHECK(false, "steppe: process ", rank, " has lost the store of the processes at ", at.address(),
                " while they met: the process that serves it has ended. Look at its output. ", line);
  }
}

/// LibTorch's stores and Gloo write to sockets that another process may have closed. Python ignores the resulting
/// signal; here it would end the process before it can report the error. A handler of the program's own stays.
inline void ignore_broken_pipes() {
#ifdef SIGPIPE
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  if (before != SIG_DFL && before != SIG_ERR) std::signal(SIGPIPE, before);
#endif
}

/// Reads the rank and the number of processes from the environment, and waits until all have joined. `timeout`: how
/// long to wait for the others, now and in each step.
///
/// RANK, WORLD_SIZE and LOCAL_RANK are those of torchrun (`torchrun --no-python ... ./train`); without them the ones of
/// Open MPI, PMI (MPICH, Intel MPI) and Slurm are read. MASTER_ADDR and MASTER_PORT give the place where the processes
/// meet: process 0 serves their store there, unless torchrun's agent does. Without any of these variables: one process.
///
/// Call it the same number of times on all processes; a second call is a second world with a store of its own. From the
/// first call on the process ignores SIGPIPE, unless the program handles it.
///
/// Errors: variables that are missing or not numbers; a rank that is not below the size; a port that is taken; a store
/// that is not reached within `timeout`; a process that does not join; two with the same rank; different sizes.
inline World world(std::chrono::milliseconds timeout = std::chrono::minutes(5)) {
  TORCH_CHECK(timeout.count() > 0, "steppe: world() was given a timeout of ", timeout.count(),
              " ms; it must be positive");
  ignore_broken_pipes();
  World found;
  found.timeout = timeout;
  if (const Launcher* const by = launcher()) {
    const char* const size = variable(by->size);
    TORCH_CHECK(size != nullptr, "steppe: ", by->rank, " is ", variable(by->rank), ", but ", by->size,
                " is not set; set it to the number of processes, or start them with torchrun");
    constexpr int kMost = (std::numeric_limits<int>::max)();
    found.size = whole_number(by->size, size, 1, kMost, "It is the number of processes");
    found.rank =
        whole_number(by->rank, variable(by->rank), 0, kMost, "It is the number of this process, counted from 0");
    TORCH_CHECK(found.rank < found.size, "steppe: ", by->rank, " is ", found.rank, ", but there are ", found.size,
                " processes (", by->size, "); ranks are counted from 0 to ", found.size - 1);
    if (const char* const local = variable(by->local_rank))
      found.local_rank = whole_number(by->local_rank, local, 0, kMost,
                                      "It is the number of this process among those of its machine, counted from 0");
  }
  if (found.size == 1) {
    found.store = c10::make_intrusive<c10d::HashStore>();
    found.store_process = 0;
    return found;
  }
  const Meeting at = meeting(found.size);
  found.store_process = at.by_agent ? -1 : 0;
  static std::atomic<int> calls{0};
  const char* const restarts = variable("TORCHELASTIC_RESTART_COUNT");  // the agent's store outlives a restart
  found.store = c10::make_intrusive<c10d::PrefixStore>(
      "steppe/" + std::string(restarts != nullptr ? restarts : "0") + "/" + std::to_string(calls++),
      connect(found, at));
  meet(found, *found.store, at);
  return found;
}

}  // namespace distributed
STEPPE_NAMESPACE_END
