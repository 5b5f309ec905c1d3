<#
.SYNOPSIS
Has the Docker engine of this machine listen on a TCP port as well, for clients with a certificate of the pool's CA.

.DESCRIPTION
Copies ca.pem, server-cert.pem and server-key.pem to C:\ProgramData\docker\certs.d, for administrators and the system only,
adds to daemon.json what makes the engine use them, restarts the service and opens the port in the firewall. The engine
stays reachable through its named pipe. Run again with newer certificates, it replaces the old ones. If the engine does
not start like that, daemon.json is put back.

.EXAMPLE
powershell -ExecutionPolicy Bypass -File D:\enable-tls.ps1

.EXAMPLE
powershell -ExecutionPolicy Bypass -File D:\enable-tls.ps1 -Remove
#>
#Requires -Version 5.1
#Requires -RunAsAdministrator
[CmdletBinding()]
param(
    # The port to listen on.
    [ValidateRange(1, 65535)] [int] $Port = 2376,
    # The address to listen on: all for IPv4; '[::]' is all for both.
    [string] $Address = '0.0.0.0',
    # Where the certificates are.
    [string] $Source = $PSScriptRoot,
    # The name of the engine's service.
    [string] $Service = 'docker',
    # Undo it.
    [switch] $Remove
)

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$Data = Join-Path $env:ProgramData 'docker'
$Certificates = Join-Path $Data 'certs.d'
$ConfigFile = Join-Path (Join-Path $Data 'config') 'daemon.json'
$RuleName = 'xscontainer-docker-tls'
$Names = 'ca.pem', 'server-cert.pem', 'server-key.pem'
$TlsKeys = 'tlsverify', 'tlscacert', 'tlscert', 'tlskey'

function Read-Config {
    if (-not (Test-Path -LiteralPath $ConfigFile)) { return New-Object psobject }
    $text = [IO.File]::ReadAllText($ConfigFile)
    if ($text.Trim() -eq '') { return New-Object psobject }
    return ConvertFrom-Json -InputObject $text
}

function Write-Config([psobject] $Config) {
    $text = ConvertTo-Json -InputObject $Config -Depth 32
    [IO.Directory]::CreateDirectory((Split-Path $ConfigFile)) | Out-Null
    # Not Set-Content: it would begin the file with a byte order mark, which dockerd takes for garbage.
    [IO.File]::WriteAllText($ConfigFile, $text, (New-Object Text.UTF8Encoding $false))
}

function Set-Key([psobject] $Config, [string] $Key, $Value) {
    Add-Member -InputObject $Config -MemberType NoteProperty -Name $Key -Value $Value -Force
}

function Remove-Key([psobject] $Config, [string] $Key) {
    if ($Config.PSObject.Properties[$Key]) { $Config.PSObject.Properties.Remove($Key) }
}

function Protect-Directory([string] $Path) {
    # By identifier: the groups have other names in other languages. S-1-5-18 is the system, S-1-5-32-544 administrators.
    $acl = New-Object Security.AccessControl.DirectorySecurity
    $acl.SetAccessRuleProtection($true, $false)
    foreach ($sid in 'S-1-5-18', 'S-1-5-32-544') {
        $who = New-Object Security.Principal.SecurityIdentifier $sid
        $acl.AddAccessRule((New-Object Security.AccessControl.FileSystemAccessRule(
            $who, 'FullControl', 'ContainerInherit, ObjectInherit', 'None', 'Allow')))
    }
    Set-Acl -LiteralPath $Path -AclObject $acl
}

function Restart-Engine {
    Restart-Service -Name $Service -Force
    (Get-Service -Name $Service).WaitForStatus('Running', [TimeSpan]::FromSeconds(60))
}

if (-not (Get-Service -Name $Service -ErrorAction SilentlyContinue)) {
    throw "There is no service named '$Service' here."
}
$config = Read-Config
$before = if (Test-Path -LiteralPath $ConfigFile) { [IO.File]::ReadAllBytes($ConfigFile) } else { $null }

if ($Remove) {
    foreach ($key in $TlsKeys) { Remove-Key $config $key }
    if ($config.PSObject.Properties['hosts']) {
        $rest = @($config.hosts | Where-Object { $_ -notlike 'tcp://*' })
        if ($rest.Count -gt 0) { Set-Key $config 'hosts' $rest } else { Remove-Key $config 'hosts' }
    }
} else {
    foreach ($name in $Names) {
        if (-not (Test-Path -LiteralPath (Join-Path $Source $name))) { throw "There is no $name in $Source." }
    }
    # What dockerd refuses to have said twice, on its command line and in its file.
    $command = (Get-ItemProperty "HKLM:\SYSTEM\CurrentControlSet\Services\$Service").ImagePath
    if ($command -match '\s(-H|--host|--tls)') {
        throw "The service '$Service' is registered with options for hosts or TLS: $command. Register it without them first."
    }
    [IO.Directory]::CreateDirectory($Certificates) | Out-Null
    # Before anything is in there.
    Protect-Directory $Certificates
    foreach ($name in $Names) {
        Copy-Item -LiteralPath (Join-Path $Source $name) -Destination (Join-Path $Certificates $name) -Force
        # A file on a CD is read-only, and the next one is to replace it.
        Set-ItemProperty -LiteralPath (Join-Path $Certificates $name) -Name IsReadOnly -Value $false
    }
    $hosts = @('npipe://')
    if ($config.PSObject.Properties['hosts']) {
        $hosts = @($config.hosts | Where-Object { $_ -notlike 'tcp://*' })
    }
    Set-Key $config 'hosts' @($hosts + "tcp://${Address}:$Port")
    Set-Key $config 'tlsverify' $true
    Set-Key $config 'tlscacert' (Join-Path $Certificates 'ca.pem')
    Set-Key $config 'tlscert' (Join-Path $Certificates 'server-cert.pem')
    Set-Key $config 'tlskey' (Join-Path $Certificates 'server-key.pem')
}

Write-Config $config
try {
    Restart-Engine
} catch {
    if ($null -ne $before) { [IO.File]::WriteAllBytes($ConfigFile, $before) } else { Remove-Item -LiteralPath $ConfigFile }
    Start-Service -Name $Service -ErrorAction SilentlyContinue
    throw "The engine does not start like that, so daemon.json is as before; the event log says why. $_"
}

Get-NetFirewallRule -Name $RuleName -ErrorAction SilentlyContinue | Remove-NetFirewallRule
if ($Remove) {
    foreach ($name in $Names) {
        Remove-Item -LiteralPath (Join-Path $Certificates $name) -ErrorAction SilentlyContinue
    }
    Write-Output 'The engine listens on its named pipe only.'
} else {
    New-NetFirewallRule -Name $RuleName -DisplayName 'Docker over TLS (xscontainer)' -Direction Inbound -Protocol TCP `
        -LocalPort $Port -Action Allow | Out-Null
    Write-Output "The engine listens on port $Port, for clients with a certificate of the pool's CA."
}
